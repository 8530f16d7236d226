"""A mapping that takes long: it advances item by item, and can be stopped and resumed anywhere.

Contract: opening a snapshot and advancing gives the same as advancing without a stop. Before each item of a training loop all global
generators are seeded from (step key, item number, rank). A process over a stream is not seeded: it draws from its own counters in State,
and the size of the blocks decides nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping as AbcMapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from mapsto.context import Context
from mapsto.kinds import Stream
from mapsto.mapping import Mapping

__all__ = ["Foreign", "Items", "Live", "Process", "Rows", "State"]

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)

State: TypeAlias = dict[str, Any]
"""Tensors, arrays, numbers, strings, bytes, lists, dicts and `Foreign`; nothing else."""

Rows: TypeAlias = Sequence[tuple[int, AbcMapping[str, float]]]
"""Rows of a log: how many items or events had been advanced over, and metrics, such as ``(120, {"train_loss": 0.3})``."""


@dataclass(frozen=True)
class Foreign:
    """An object of another library as its codec wrote it; a codec rebuilds allow-listed classes and never unpickles."""

    codec: str
    data: bytes


class Items(Protocol):
    """What a training loop advances over: `items[step]` is the same whenever it is asked for.

    Items that take a while to make may have an attribute `workers`: that many threads make the next ones ahead.
    """

    def __getitem__(self, step: int, /) -> Any: ...


class Live(Generic[B]):
    """A process at work. Only `advance` changes it."""

    step: int
    """How many items, or events of a stream, have been advanced over."""
    total: int | None
    """How many there are in all, where that is known."""
    done: bool
    """Whether it has come to its end, by reaching `total` or by stopping early. A process over a stream ends with the stream."""
    position: Any = None
    """Where in its stream it stands, JSON in the stream's own terms; None at the beginning, and where there is no stream."""

    @abstractmethod
    def advance(self, item: Any) -> Rows:
        """Work on one item or block; changes only itself. Gives rows for the log: none, one or several."""

    def account(self) -> dict[str, Any]:
        """What is to be told of its work besides its rows and its result, as JSON; the step's record keeps it. Changes nothing."""
        return {}

    @abstractmethod
    def snapshot(self) -> State:
        """The state as it stands. May share memory with this object: the caller stores it before the next advance."""

    @abstractmethod
    def result(self) -> B:
        """What the process has come to, at its end or on the way. Changes nothing, and shares no memory with this object."""


class Process(Mapping[A, B]):
    """A mapping that takes long. Every training loop and every online learner is one."""

    @abstractmethod
    def items(self, value: A, ctx: Context) -> Items | Stream:
        """What to advance over: items addressable by step, or a stream, which is read in order."""

    @abstractmethod
    def open(self, value: A, state: State | None, ctx: Context) -> Live[B]:
        """A live process that goes on from a snapshot, or begins where `state` is None.

        Whatever is chosen by measuring is measured when it begins, once, and kept in the state.
        """

    def apply(self, value: A, ctx: Context) -> B:
        return ctx.drive(self, value)
