"""Penalties that drive whole channels to zero while a network learns, so that pruning them costs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mapsto.nn.prune.dependency_groups import Group, Mask
from mapsto.nn.prune.importance import scales_of, weights_of

if TYPE_CHECKING:
    from mapsto.nn.prune.dependency_groups import Member

__all__ = ["Penalty"]


class Penalty:
    """Sums over the channels of a module's groups, differentiable in its parameters.

    Parameters
    ----------
    module
        Whose parameters they are; it may be moved and trained meanwhile.
    groups
        Its groups.

    >>> from mapsto.nn.prune.dependency_groups import find_groups
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> for weight, values in zip(net.parameters(), ([[3.0], [0.0]], [[-4.0, 2.0]]), strict=True):
    ...     weight.data = torch.tensor(values)
    >>> penalty = Penalty(net, find_groups(net, torch.ones(9, 1)).groups)
    >>> penalty.group_lasso().item(), penalty.squares({"0": torch.tensor([True, False]).numpy()}).item()
    (7.0, 4.0)
    """

    def __init__(self, module: nn.Module, groups: Sequence[Group]) -> None:
        self._weights = {group.name: [_Part(*found) for found in weights_of(group, module)] for group in groups}
        self._scales = [scale for group in groups for scale, _ in scales_of(group, module)]
        self._channels = {group.name: group.channels for group in groups}

    @property
    def has_scales(self) -> bool:
        """Whether any channel runs through a batch norm."""
        return bool(self._scales)

    def batch_norm(self) -> Tensor:
        """``Σ |γ|`` over the batch norms that channels run through."""
        return torch.stack([scale.abs().sum() for scale in self._scales]).sum()

    def group_lasso(self) -> Tensor:
        """``Σ_g Σ_c ‖w_c‖₂`` with w_c all weights that make, scale and read channel c of group g."""
        norms = [(self._squares(name) + 1e-16).sqrt().sum() for name in self._weights]
        return torch.stack(norms).sum()

    def squares(self, kept: Mapping[str, Mask]) -> Tensor:
        """``Σ ‖w_c‖²`` over the channels that do not stay."""
        sums = [self._squares(name)[torch.from_numpy(~mask)].sum() for name, mask in kept.items()]
        return torch.stack(sums).sum()

    def _squares(self, name: str) -> Tensor:
        """Sum of squares of each channel's weights, shape (channels,)."""
        parts = [part.squares(self._channels[name]) for part in self._weights[name]]
        return torch.stack(parts).sum(0)


class _Part:
    """One weight, and which channel each index of its dimension belongs to."""

    def __init__(self, weight: Tensor, member: Member) -> None:
        self._weight, self._dim = weight, member.dim
        self._owner = torch.from_numpy(member.owner)
        self._mine = self._owner >= 0

    def squares(self, channels: int) -> Tensor:
        along = self._weight.square().movedim(self._dim, 0)
        sums = along.flatten(1).sum(1) if along.ndim > 1 else along
        mine, owner = self._mine.to(sums.device), self._owner.to(sums.device)
        return sums.new_zeros(channels).index_add(0, owner[mine], sums[mine])
