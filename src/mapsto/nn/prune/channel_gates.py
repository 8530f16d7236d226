"""What changes, to first order, if what a channel's readers are given were zero: the gate of each channel, sample by sample.

``g_nc = Σ_r Σ_positions a_nc · ∂L_n/∂a_nc`` over the layers r that read channel c, with a what they are given: after batch norm,
nonlinearity and pooling. A residual sum has several readers, all of which lose the channel at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mapsto.nn.prune.dependency_groups import Group

__all__ = ["Gates", "has_readers"]


def has_readers(module: nn.Module, group: Group) -> bool:
    """Whether modules read the group's channels, or it is the output; functional calls cannot be watched."""
    return group.features > 0 or any(_reader(module, member.name, member.role) is not None for member in group.members)


class Gates:
    """Gates of the groups' channels; see `watched`."""

    def __init__(self, module: nn.Module, groups: Sequence[Group]) -> None:
        self._module, self._groups = module, groups
        self._calls: list[_Call] = []

    @contextmanager
    def watched(self) -> Generator[None]:
        """Keep what readers are given by the calls of the module within the block; what was kept before is let go."""
        self._calls = []
        with ExitStack() as stack:
            for group in self._groups:
                for member in group.members:
                    part = _reader(self._module, member.name, member.role)
                    if part is not None:
                        branch = self._branch(group, member.owner, -1 if isinstance(part, nn.Linear) else 1)
                        stack.callback(part.register_forward_pre_hook(branch).remove)
                if group.features:
                    owner = np.repeat(np.arange(group.channels), group.features)
                    stack.callback(self._module.register_forward_hook(self._output(group, owner)).remove)
            yield

    def changes(self, loss: Tensor) -> dict[str, NDArray[np.float64]]:
        """Group → gates, shape (N, channels), of a loss that is a sum over the N samples of all calls.

        Groups that the loss does not depend on are not in it.
        """
        given = [call.activations for call in self._calls]
        slopes = torch.autograd.grad(loss, given, retain_graph=True, allow_unused=True) if given else ()
        sums: dict[str, dict[int, NDArray[np.float64]]] = {}
        for call, slope in zip(self._calls, slopes, strict=True):
            if slope is None:  # pyright: ignore[reportUnnecessaryComparison]
                continue
            product = (call.activations * slope).detach().movedim(call.dim, 1)
            by_index = product.flatten(2).sum(2) if product.ndim > 2 else product
            mine = call.owner >= 0
            gates = np.zeros((call.group.channels, len(by_index)))
            np.add.at(gates, call.owner[mine], by_index.double().cpu().numpy().T[mine])
            of_group = sums.setdefault(call.group.name, {})
            of_group[call.number] = of_group.get(call.number, 0.0) + gates.T
        return {name: np.concatenate(list(of_group.values())) for name, of_group in sums.items()}

    def _branch(
        self, group: Group, owner: NDArray[np.int64], dim: int
    ) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        """A hook that gives the reader a view of its own, whose slope is that of this reader alone."""
        numbers = itertools.count()

        def hook(part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            activations: Tensor = given[0].view_as(given[0])
            if activations.requires_grad:
                self._calls.append(_Call(group, owner, dim, activations, next(numbers)))
            return activations, *given[1:]

        return hook

    def _output(self, group: Group, owner: NDArray[np.int64]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        numbers = itertools.count()

        def hook(part: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            if result.requires_grad:
                self._calls.append(_Call(group, owner, -1, result, next(numbers)))

        return hook


class _Call(NamedTuple):
    """What one reader of a group was given once."""

    group: Group
    owner: NDArray[np.int64]
    """Of each index of the activations' dimension the channel, or -1."""
    dim: int
    activations: Tensor
    number: int
    """How many calls of this reader came before: those of one number are of the same samples."""


def _reader(module: nn.Module, name: str, role: str) -> nn.Module | None:
    """The module that reads channels by the tensor `name`."""
    path, _, tensor = name.rpartition(".")
    return module.get_submodule(path) if role == "in" and tensor == "weight" else None
