"""Which channels of its original a pruned network still has, read from its edits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.edits.channels import Channels
from mapsto.nn.network.features import last_of_each_resolution, output_shapes

__all__ = ["kept_channels", "last_norms"]


def last_norms(module: nn.Module, example: Tensor) -> list[str]:
    """The last batch norm of each resolution, else the last convolution, from the largest map to the smallest.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    >>> last_norms(net.eval(), torch.zeros(2, 1, 8, 8))
    ['1', '4']
    """
    kinds = (nn.BatchNorm2d, nn.Conv2d)
    shapes = {
        path: shape
        for path, shape in output_shapes(module, example).items()
        if path in dict(module.named_modules()) and isinstance(module.get_submodule(path), kinds)
    }
    return list(last_of_each_resolution(shapes, tuple(example.shape[2:])).values())


def kept_channels(student: Network, teacher: Network, path: str, *, where: str) -> Tensor:
    """The channels of the teacher's layer that are the student's, in their order, shape (C,) int64.

    Raises
    ------
    DomainError
        The student was not made from the teacher by edits, or the layer has no weight that says what its channels are.
    """
    before = len(teacher.edits)
    if student.arch != teacher.arch or student.edits[:before] != teacher.edits:
        raise DomainError(
            "the student was not made from the teacher by edits",
            where=f"{where}: teacher",
            hint="give the network that was pruned as it was before",
        )
    name = f"{path}.weight"
    if name not in teacher.tensors or name not in student.tensors:
        raise DomainError(
            f"the channels of '{path}' are not known, as it has no weight",
            where=f"{where}: layers",
            hint="name a batch norm or a convolution",
        )
    kept = torch.arange(len(teacher.tensors[name]))
    for edit in student.edits[before:]:
        for group in edit.kept if isinstance(edit, Channels) else ():
            if (name, 0) in group.at:
                kept = kept[group.numbers]
    return kept
