"""How important channels are, from tensors shaped as the weights: sums over what belongs to each channel of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from mapsto.nn.prune.dependency_groups import Group, Member

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["channel_sums", "group_means", "mean_normalised", "normalised", "scales_of", "weight_norms", "weights_of"]


def channel_sums(tensor: Tensor, member: Member, channels: int) -> NDArray[np.float64]:
    """Sums over what belongs to each channel, shape (channels,), of a tensor shaped as the member's."""
    along = tensor.detach().movedim(member.dim, 0).flatten(1) if tensor.ndim > 1 else tensor.detach().unsqueeze(1)
    sums = along.double().sum(1).cpu().numpy()
    mine = member.owner >= 0
    return np.bincount(member.owner[mine], weights=sums[mine], minlength=channels).astype(np.float64)


def group_means(tensors: Mapping[str, Tensor], group: Group) -> NDArray[np.float64]:
    """``Σ_m Σ_{t ∈ m[c]} t / M`` over the group's M members that `tensors` names, shape (channels,)."""
    members = [member for member in group.members if member.name in tensors]
    sums = (channel_sums(tensors[member.name], member, group.channels) for member in members)
    return sum(sums, np.zeros(group.channels)) / max(len(members), 1)


def weights_of(group: Group, module: nn.Module) -> list[tuple[Tensor, Member]]:
    """The parameters that make, scale and read a group's channels; biases and running statistics are left out."""
    parameters = dict(module.named_parameters())
    return [
        (parameters[member.name], member)
        for member in group.members
        if member.name in parameters and not member.name.endswith("bias")
    ]


def scales_of(group: Group, module: nn.Module) -> list[tuple[Tensor, Member]]:
    """The scales γ of the batch norms that a group's channels run through."""
    norms = {
        f"{path}.weight" if path else "weight"
        for path, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    }
    return [(tensor, member) for tensor, member in weights_of(group, module) if member.name in norms]


def weight_norms(module: nn.Module, groups: Sequence[Group], power: int) -> dict[str, NDArray[np.float64]]:
    """``Σ_m ‖w_m[c]‖_p^p`` of each group's channels, shape (channels,).

    >>> import torch
    >>> from mapsto.nn.prune.dependency_groups import find_groups
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> for weight, values in zip(net.parameters(), ([[3.0], [1.0]], [[-4.0, 2.0]]), strict=True):
    ...     weight.data = torch.tensor(values)
    >>> weight_norms(net, find_groups(net, torch.ones(9, 1)).groups, 2)["0"].tolist()
    [25.0, 5.0]
    """
    importance: dict[str, NDArray[np.float64]] = {}
    for group in groups:
        norms = (channel_sums(w.abs() ** power, member, group.channels) for w, member in weights_of(group, module))
        importance[group.name] = sum(norms, np.zeros(group.channels))
    return importance


def mean_normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in units of their mean, so that layers of any scale compare; zeros stay zeros."""
    mean = values.mean()
    return values / mean if mean > 0 else values


def normalised(scores: Mapping[str, NDArray[np.float64]], *, wanted: bool) -> dict[str, NDArray[np.float64]]:
    """Each group's scores in units of its mean where that is `wanted`, else as they are."""
    return {name: mean_normalised(values) if wanted else values for name, values in scores.items()}
