"""Keep some channels and drop the others: tensors are sliced along the dimensions that the channels run through.

``w' = w[K₀][:, K₁]…`` with K_d the kept indices of dimension d; the sizes that modules hold as attributes are set to match. A buffer
that holds indices of channels loses those that are dropped, and the others become their places among the kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit, Frozen

__all__ = ["VALUES", "Channels"]

VALUES = -1
"""In place of a dimension: the numbers that a buffer holds are indices of channels."""


class Kept(Frozen):
    """The indices that stay, in every tensor and dimension that they run through."""

    of: int = Field(ge=1)
    """Size of the dimension before."""
    indices: str = Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")
    """Indices in ascending order, runs as first-last: ``0-3,7``."""
    at: tuple[tuple[str, int], ...] = Field(min_length=1)
    """(name of a parameter or buffer, dimension); dimension -1 where the buffer's numbers are such indices themselves."""

    def __post_init__(self) -> None:
        found = self.numbers
        if found[-1] >= self.of or any(a >= b for a, b in pairwise(found)):
            raise DomainError(
                f"'{self.indices}' is no ascending list of indices below {self.of}",
                where=f"channels: {self.at[0][0]}",
                hint="write runs as first-last, each index once",
            )

    @property
    def numbers(self) -> list[int]:
        """The indices one by one."""
        ends = [part.partition("-") for part in self.indices.split(",")]
        return [index for first, _, last in ends for index in range(int(first), int(last or first) + 1)]


class Channels(Edit):
    """Kept indices by tensor and dimension, and the sizes that follow.

    The network's input, and its output unless the embedding is what is pruned, keep their shapes. Where a shortcut pads channels
    with zeros, the attributes that count the zeros are among those set.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> edit = Channels.of(
    ...     {"0.weight": {0: [0, 2]}, "0.bias": {0: [0, 2]}, "2.weight": {1: [0, 2]}},
    ...     sizes={"0.weight": {0: 3}, "0.bias": {0: 3}, "2.weight": {1: 3}},
    ...     attributes={"0": {"out_features": 2}, "2": {"in_features": 2}},
    ... )
    >>> edit.apply(net)
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=1, bias=True)
    )
    >>> [(kept.indices, len(kept.at)) for kept in edit.kept]
    [('0,2', 3)]
    """

    kept: tuple[Kept, ...]
    """What stays; a dimension that is not named stays whole."""
    attributes: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Module path → attribute → its new value, such as ``out_channels``, ``groups``, ``before`` (zeros) or ``embedding``."""

    @classmethod
    def of(
        cls,
        keep: Mapping[str, Mapping[int, Iterable[int]]],
        *,
        sizes: Mapping[str, Mapping[int, int]],
        attributes: Mapping[str, Mapping[str, int]],
    ) -> Channels:
        """From kept indices and former sizes by tensor name and dimension; equal lists are written once."""
        places: dict[tuple[int, str], list[tuple[str, int]]] = defaultdict(list)
        for name, dims in keep.items():
            for dim, indices in dims.items():
                places[sizes[name][dim], _runs(indices)].append((name, dim))
        kept = tuple(Kept(of=size, indices=runs, at=tuple(at)) for (size, runs), at in places.items())
        return cls(kept=kept, attributes={path: dict(values) for path, values in attributes.items()})

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` for a tensor or an attribute that is not there or has another size."""
        own: dict[str, Tensor] = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        sliced: dict[int, Tensor] = {}
        for name, dims in self._dims().items():
            if name not in own:
                raise DomainError("the network has no such tensor", where=f"channels: {name}", hint=_REPLAY)
            tensor = own[name]
            if id(tensor) in sliced:
                continue
            for dim, kept in dims.items():
                if dim == VALUES:
                    _require_indices(name, tensor, kept)
                elif dim >= tensor.ndim or tensor.shape[dim] != kept.of:
                    raise DomainError(
                        f"its shape is {tuple(tensor.shape)}, but dimension {dim} should have size {kept.of}",
                        where=f"channels: {name}",
                        hint=_REPLAY,
                    )
            sliced[id(tensor)] = _replacement(tensor, dims)
        _replace(module, sliced)
        self._set_attributes(module)
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        """A tensor shaped as the parameter is sliced as the parameter; a dimension of size 1 is broadcast and stays."""
        dims = {dim: kept for dim, kept in self._dims().get(name, {}).items() if dim != VALUES}
        for dim, kept in dims.items():
            if dim < tensor.ndim and tensor.shape[dim] not in (1, kept.of):
                raise DomainError(
                    f"a tensor of shape {tuple(tensor.shape)} follows it, but dimension {dim} has size {kept.of}",
                    where=f"channels: {name}",
                    hint="give it the parameter's shape, or the name of no parameter (~…)",
                )
        wanted = {dim: kept for dim, kept in dims.items() if dim < tensor.ndim and tensor.shape[dim] == kept.of}
        return _slice(tensor, wanted)

    def _dims(self) -> dict[str, dict[int, Kept]]:
        found: dict[str, dict[int, Kept]] = defaultdict(dict)
        for kept in self.kept:
            for name, dim in kept.at:
                found[name][dim] = kept
        return dict(found)

    def _set_attributes(self, module: nn.Module) -> None:
        for path, values in self.attributes.items():
            try:
                owner = module.get_submodule(path)
            except AttributeError as error:
                raise DomainError(str(error), where="channels", hint=_REPLAY) from error
            for name, value in values.items():
                if not isinstance(getattr(owner, name, None), int):
                    raise DomainError(
                        f"it has no size '{name}'", where=f"channels: {path or 'the network'}", hint=_REPLAY
                    )
                setattr(owner, name, value)


_REPLAY = "edits replay in the order they were made, on the factory they were made for"


def _runs(indices: Iterable[int]) -> str:
    """Indices as runs.

    >>> _runs([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


def _require_indices(name: str, tensor: Tensor, kept: Kept) -> None:
    if tensor.is_floating_point() or tensor.ndim != 1 or (len(tensor) and int(tensor.max()) >= kept.of):
        raise DomainError(
            f"it is no list of indices below {kept.of}, but {tensor.dtype} of shape {tuple(tensor.shape)}",
            where=f"channels: {name}",
            hint=_REPLAY,
        )


def _slice(tensor: Tensor, dims: Mapping[int, Kept]) -> Tensor:
    for dim, kept in dims.items():
        indices = torch.tensor(kept.numbers, device=tensor.device)
        tensor = _renumbered(tensor, indices, kept.of) if dim == VALUES else tensor.index_select(dim, indices)
    return tensor


def _renumbered(numbers: Tensor, kept: Tensor, size: int) -> Tensor:
    """Those of the numbers that are kept, as places among the kept.

    >>> _renumbered(torch.tensor([3, 0, 2, 1]), torch.tensor([0, 3]), 4)
    tensor([1, 0])
    """
    places = torch.full((size,), -1, dtype=numbers.dtype, device=numbers.device)
    places[kept] = torch.arange(len(kept), dtype=numbers.dtype, device=numbers.device)
    moved = places[numbers]
    return moved[moved >= 0]


def _replacement(tensor: Tensor, dims: Mapping[int, Kept]) -> Tensor:
    values = _slice(tensor.detach(), dims)
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _replace(module: nn.Module, sliced: Mapping[int, Tensor]) -> None:
    """Put the slices in the place of the tensors wherever those are held, so that tied weights stay tied."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in list(held.items()):
                if id(tensor) in sliced:
                    setattr(part, name, sliced[id(tensor)])
