"""Events as values: a source that is read in order, block by block, from any position.

A block is columns, not dictionaries: one array a feature, a row an event. Blocks are transport: how many events one holds decides nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from mapsto.errors import DataError
from mapsto.kinds.frozen import Frozen, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Block", "ColumnType", "Stream", "Task"]

ColumnType: TypeAlias = Literal["number", "word"]
"""What a column of events holds."""
Task: TypeAlias = Literal["classes", "values"]
"""What the labels of a stream are: classes, which a block holds as strings, or numbers, as float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """N events in their order; raw values, as they came.

    An event with x and y is a labelled example. One with x alone is a question: with an id, its label may follow. One with an id and y
    alone is a label that comes late.
    """

    times: NDArray[np.float64]
    """(N,), seconds of the epoch; NaN where the source does not say."""
    ids: NDArray[Any]
    """(N,), strings; empty where an event has no id."""
    x: Mapping[str, NDArray[Any]]
    """A column each, (N, ...): float64 with NaN for a missing value; strings (dtype object), empty for a missing value; images and token
    ids as arrays of their own type."""
    has_x: NDArray[np.bool_]
    """(N,), whether an event has features."""
    y: NDArray[Any]
    """(N,), classes as strings (dtype object) or numbers as float64."""
    has_y: NDArray[np.bool_]
    """(N,), whether an event has a label."""
    next: Json
    """The position after the last of them: opened there, the stream goes on."""
    broken: Mapping[int, str] = field(default_factory=dict[int, str])
    """Events, counted from 0, that could not be read → why."""

    def __post_init__(self) -> None:
        count = len(self.times)
        own = (("ids", self.ids), ("has_x", self.has_x), ("y", self.y), ("has_y", self.has_y))
        for name, column in (*own, *self.x.items()):
            if len(column) != count:
                raise DataError(
                    f"a block of {count} events has {len(column)} values of '{name}'", hint="give one an event"
                )

    def __len__(self) -> int:
        return len(self.times)

    def take(self, start: int, stop: int) -> Block:
        """The events from `start` up to `stop`, with the position of the whole block."""
        part = slice(start, stop)
        return Block(
            times=self.times[part],
            ids=self.ids[part],
            x={name: column[part] for name, column in self.x.items()},
            has_x=self.has_x[part],
            y=self.y[part],
            has_y=self.has_y[part],
            next=self.next,
            broken={event - start: why for event, why in self.broken.items() if start <= event < stop},
        )


class Stream(Frozen):
    """A reference to a source of events. One file in ``mapsto/data/streams/``.

    Contract: two reads agree; opened at the `next` of any block, it goes on with the event after it.
    """

    version: ClassVar[int] = 1

    @property
    def task(self) -> Task:
        """Whether labels are classes or numbers; a field where the source does not tell."""
        return "classes"

    @property
    def labelled(self) -> bool:
        """Whether its events can have labels."""
        return True

    @property
    def bounded(self) -> bool:
        """Whether it has an end that is known to stay: what a run over it comes to can then be used again."""
        return True

    @abstractmethod
    def identity(self) -> str:
        """Which source it is, whatever that holds at present: an unbounded stream's checkpoint is kept under it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of what a bounded stream holds, and of how it is read."""

    @abstractmethod
    def columns(self) -> Mapping[str, ColumnType]:
        """The features that are known before the first event, by the spec or by the source's first rows; the same at every position."""

    @abstractmethod
    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        """Blocks of at most `size` events from a position on; None is the beginning.

        A source that waits for more gives an empty block at least every second. Raises `DataError` that names the source and the remedy.
        """
