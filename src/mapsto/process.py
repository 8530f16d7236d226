"""A mapping that takes long: it advances item by item, and can be stopped and resumed anywhere.

Contract: opening a snapshot and advancing gives the same as advancing without a stop. Before each advance all global
generators are seeded from (step key, item number, rank).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping as AbcMapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from mapsto.context import Context
from mapsto.mapping import Mapping

__all__ = ["Foreign", "Items", "Live", "Process", "State"]

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)

State: TypeAlias = dict[str, Any]
"""Tensors, numbers, strings, bytes, lists, dicts and `Foreign`; nothing else. ``state["step"]`` counts finished items."""


@dataclass(frozen=True)
class Foreign:
    """An object of another library as its codec wrote it; a codec rebuilds allow-listed classes and never unpickles."""

    codec: str
    data: bytes


class Items(Protocol):
    """What a process advances over: `items[step]` is the same whenever it is asked for.

    Items that take a while to make may have an attribute `workers`: that many threads make the next ones ahead.
    """

    def __getitem__(self, step: int, /) -> Any: ...


class Live:
    """A process at work. Only `advance` changes it."""

    step: int
    """How many items have been advanced over."""
    total: int | None
    """How many there are in all, where that is known."""
    done: bool
    """Whether it has come to its end, by reaching `total` or by stopping early."""

    @abstractmethod
    def advance(self, item: Any) -> AbcMapping[str, float]:
        """Work on one item; changes only itself. Gives metrics, such as ``{"train_loss": 0.3}``."""

    @abstractmethod
    def snapshot(self) -> State:
        """The state as it stands. May share memory with this object: the caller stores it before the next advance."""


class Process(Mapping[A, B]):
    """A mapping that takes long. Every training loop is one."""

    @abstractmethod
    def start(self, value: A, ctx: Context) -> State:
        """The first state. Whatever is chosen by measuring is measured here, once, and kept in the state."""

    @abstractmethod
    def items(self, value: A, ctx: Context) -> Items:
        """What to advance over, addressable by step."""

    @abstractmethod
    def open(self, value: A, state: State, ctx: Context) -> Live:
        """A live process that goes on from `state`."""

    @abstractmethod
    def finish(self, value: A, state: State, ctx: Context) -> B:
        """The result from the last state."""

    def apply(self, value: A, ctx: Context) -> B:
        return ctx.drive(self, value)
