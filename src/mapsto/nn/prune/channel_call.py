"""An operation as the rules of pruning see it: its arguments, and what it says of their channels to whoever traces it.

What is known of a tensor is a label for each index of each dimension: the node of the channel that it is (`channel_trace`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from mapsto.nn.edits.channels import VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MEETS", "Labels", "OperatorCall", "Role", "Traced", "Tracer"]

Labels: TypeAlias = "NDArray[np.int64] | None"
"""The node of each index of a dimension, -1 for an index that stays; None where all stay."""
Role: TypeAlias = Literal["out", "in", "along", "pad"]

MEETS = "its channels meet numbers that stay"


@dataclass(frozen=True, kw_only=True, eq=False)
class Traced:
    """What is known of a tensor."""

    shape: tuple[int, ...]
    dims: list[Labels]
    given: bool = False
    """Whether it is made of parameters and buffers alone."""
    depth: int = 0
    """How many layers it has passed since the input."""
    name: str = ""
    """The parameter or buffer that it is; empty for any other tensor."""


class Tracer(Protocol):
    """What an operation is reported to while the network runs."""

    padded: bool
    """Whether channels are followed where zeros are put beside them."""
    modules: dict[str, nn.Module]
    """Path → module."""
    joined: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Pairs of nodes that are one channel."""
    staying: list[tuple[NDArray[np.int64], str]]
    """Nodes that must stay, and why."""
    numbers: dict[str, NDArray[np.int64]]
    """Buffers of whole numbers by name."""

    @property
    def path(self) -> str:
        """The module that runs."""
        ...

    def seen(self, value: Any) -> Any:
        """What is known in the place of a tensor, anything else as it is."""
        ...

    def extra(self, name: str, dim: int, size: int, role: Role) -> NDArray[np.int64]:
        """The nodes of a place, made at its first mention."""
        ...

    def role(self, labels: Labels, role: str, depth: int) -> None:
        """Note what is done at the places of these nodes."""
        ...


class OperatorCall:
    """An operation as it is made: its name, and its arguments by name, where `Traced` stands for each tensor."""

    def __init__(self, tracer: Tracer, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        schema = function._schema
        space, _, name = schema.name.partition("::")
        self.name: str = name.removesuffix("_") if space == "aten" else schema.name
        self.pointwise = torch.Tag.pointwise in function.tags
        defaults = {argument.name: argument.default_value for argument in schema.arguments}
        given = dict(zip(defaults, args, strict=False)) | kwargs
        self.arguments: dict[str, Any] = defaults | tree_map(tracer.seen, given)
        self.tensors = [value for value in tree_leaves(self.arguments) if isinstance(value, Traced)]
        self.results: list[tuple[int, ...]] = []
        """Shapes of the tensors that came out."""
        self.made = False
        """Whether a layer's weight made the result's channels."""
        self._tracer = tracer

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def module(self) -> nn.Module | None:
        """The module whose forward makes the call."""
        return self._tracer.modules.get(self._tracer.path)

    @property
    def padded(self) -> bool:
        """Whether channels are followed where zeros are put beside them."""
        return self._tracer.padded

    def join(self, first: Labels, second: Labels, why: str = MEETS) -> None:
        """Both are the same channels, index by index; where one must stay, the other must, too."""
        if first is None or second is None:
            self.stay(first, why)
            self.stay(second, why)
            return
        both = (first >= 0) & (second >= 0)
        self._tracer.joined.append((first[both], second[both]))
        self.stay(first[~both], why)
        self.stay(second[~both], why)

    def tie(self, rows: NDArray[np.int64], why: str = MEETS) -> None:
        """The channels of a row go together, shape (rows, channels)."""
        for column in rows.T[1:]:
            self.join(rows[:, 0], column, why)

    def stay(self, labels: Labels, why: str) -> None:
        """These channels must stay."""
        if labels is not None and (labels >= 0).any():
            place = f"'{self._tracer.path}'" if self._tracer.path else "the network"
            self._tracer.staying.append((labels[labels >= 0], f"{why}: {self.name} in {place}"))

    def stay_all(self, why: str) -> None:
        """All channels of all arguments must stay."""
        for tensor in self.tensors:
            for labels in tensor.dims:
                self.stay(labels, why)

    def role(self, labels: Labels, role: Literal["out", "in", "group"]) -> None:
        """What the operation does to these indices of a weight."""
        self.made |= role == "out"
        self._tracer.role(labels, role, 1 + max(tensor.depth for tensor in self.tensors))

    def zeros(self, count: int, side: Literal["before", "after"]) -> NDArray[np.int64]:
        """Nodes for channels of zeros that the running module puts there, or -1 where it cannot put fewer."""
        if count and self.module is not None and getattr(self.module, side, None) == count:
            return self._tracer.extra(f"{self._tracer.path}.{side}".lstrip("."), 0, count, "pad")
        return np.full(count, -1, np.int64)

    def picked(self, labels: NDArray[np.int64], index: Any) -> Labels:
        """The channels that a buffer's numbers pick, None where `index` is no such buffer."""
        numbers = self._tracer.numbers.get(index.name) if isinstance(index, Traced) else None
        if numbers is None or numbers.ndim != 1:
            return None
        nodes = self._tracer.extra(index.name, VALUES, len(labels), "along")
        self.join(labels, nodes)
        return labels[numbers]
