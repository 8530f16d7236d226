"""Other streams read event by event, for streams that are made from them, and blocks put together from their events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mapsto.data.streams._cells import words_of
from mapsto.data.streams._sources import STANDARD_INPUT
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Stream, Task
from mapsto.mapping import Ref

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Cursor", "Part", "merged_types", "missing_like", "put_together", "same_task", "stream_of"]


class Cursor:
    """A place in a stream, whose position is the stream's own, however it is cut into blocks."""

    def __init__(self, stream: Stream, position: Json, *, size: int) -> None:
        self._stream, self._begin = stream, position
        self._blocks = stream.open(position, size=size)
        self._block: Block | None = None
        self._at = 0
        """Events of the block at hand that lie behind."""
        self._ended = False

    @property
    def position(self) -> Json:
        """To go on from."""
        block, begin = self._block, self._begin
        if block is None or not self._at:
            return begin
        if self._at == len(block):
            return block.next
        first = 0 if begin is None else begin
        if (
            type(first) is int and type(block.next) is int and block.next - first == len(block)
        ):  # events by their number
            return first + self._at
        left = self._at
        while left:  # only the stream knows where it stands after so many events
            part = next(self._stream.open(begin, size=left))
            left, begin = left - len(part), part.next
        return begin

    def peek(self) -> tuple[Block, int] | None:
        """The block at hand and the next of its events; a block without events where the stream waits for more, None at its end."""
        while self._block is None or self._at >= len(self._block):
            if self._block is not None:
                self._begin, self._at, self._block = self._block.next, 0, None
            if self._ended:
                return None
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                return None
            if not len(block):
                return block, 0
            self._block = block
        return self._block, self._at

    def take(self, count: int) -> None:
        """Go on by so many of the events of the block at hand."""
        self._at += count


class Part(NamedTuple):
    """Events of a block, and where they stand in the one that is made."""

    block: Block
    events: list[int]
    places: list[int]
    x: bool = True
    """Whether their features are taken, and so below."""
    y: bool = True


def put_together(
    parts: Sequence[Part],
    types: Mapping[str, ColumnType],
    task: Task,
    position: Json,
    *,
    times: NDArray[np.float64] | None = None,
    ids: NDArray[Any] | None = None,
) -> Block:
    """The block of the parts' events. Columns that a part has not are missing in its events.

    `types` are columns that it has in any case; `times` and `ids` stand for those of the parts.
    """
    import numpy as np

    count = sum(len(part.events) for part in parts)
    columns: dict[str, NDArray[Any]] = {
        name: words_of([""] * count) if kind == "word" else np.full(count, np.nan) for name, kind in types.items()
    }
    has_x, has_y = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    y: NDArray[Any] = np.full(count, np.nan) if task == "values" else words_of([""] * count)
    own_times, own_ids = np.full(count, np.nan), words_of([""] * count)
    broken: dict[int, str] = {}
    for part in parts:
        block, events, places = part.block, np.array(part.events, np.int64), np.array(part.places, np.int64)
        if not len(events):
            continue
        own_times[places], own_ids[places] = block.times[events], block.ids[events]
        if part.x:
            has_x[places] = block.has_x[events]
            for name, values in block.x.items():
                taken, there = values[events], columns.get(name)
                if there is None or (
                    there.dtype != object and (there.dtype != taken.dtype or there.ndim != taken.ndim)
                ):
                    columns[name] = _widened(there, taken, count)
                columns[name][places] = taken
        if part.y:
            has_y[places] = block.has_y[events]
            y[places] = block.y[events]
        if block.broken:
            pairs = zip(part.events, part.places, strict=True)
            broken |= {place: block.broken[event] for event, place in pairs if event in block.broken}
    return Block(
        times=own_times if times is None else times,
        ids=own_ids if ids is None else ids,
        x=columns,
        has_x=has_x,
        y=y,
        has_y=has_y,
        next=position,
        broken=broken,
    )


def _widened(there: NDArray[Any] | None, taken: NDArray[Any], count: int) -> NDArray[Any]:
    """A column that can hold what is there and what is taken."""
    import numpy as np

    empty = missing_like(taken, count)
    if there is None or there.ndim != taken.ndim or taken.dtype != object:
        return empty
    known = ~np.isnan(there)
    empty[known] = there[known]
    return empty


def missing_like(values: NDArray[Any], count: int) -> NDArray[Any]:
    """A column of so many missing values: NaN, empty words, or zeros where there is no such value."""
    import numpy as np

    shape = (count, *values.shape[1:])
    if values.dtype.kind in "OUS":
        return np.full(shape, "", dtype=object)
    return np.full(shape, np.nan, values.dtype) if values.dtype.kind == "f" else np.zeros(shape, values.dtype)


def stream_of(source: Stream | Ref, *, where: str, reread: bool = False) -> Stream:
    """The stream of a field, which the recipe has put in place of a reference.

    Raises `SpecError` where there is none, or where it is to be `reread` and is of standard input.
    """
    if isinstance(source, Ref):
        raise SpecError(
            f"{source!r} stands for a stream that is not known here",
            where=where,
            hint="use it in a recipe that has an entry of that label, or give the stream itself",
        )
    if reread and _is_read_once(source):
        raise SpecError(
            "standard input cannot be read again", where=where, hint="write its events to a file and follow that"
        )
    return source


def _is_read_once(value: Any) -> bool:
    """Whether a stream is of standard input, or over one that is."""
    if isinstance(value, Stream):
        parts = [getattr(value, field.name) for field in dataclasses.fields(cast("Any", value))]
        return getattr(value, "file", None) == STANDARD_INPUT or any(map(_is_read_once, parts))
    return isinstance(value, tuple) and any(map(_is_read_once, cast("tuple[Any, ...]", value)))


def merged_types(streams: Sequence[Stream]) -> dict[str, ColumnType]:
    """The columns of all, of the type that the first has that holds them."""
    found: dict[str, ColumnType] = {}
    for stream in streams:
        for name, kind in stream.columns().items():
            found.setdefault(name, kind)
    return found


def same_task(streams: Sequence[Stream], *, where: str) -> Task:
    """What the labels of all are. Raises `DataError` where some are classes and others numbers."""
    tasks: set[Task] = {stream.task for stream in streams}
    if len(tasks) > 1:
        raise DataError("some labels are classes and others numbers", where=where, hint="give streams of one kind")
    return tasks.pop()
