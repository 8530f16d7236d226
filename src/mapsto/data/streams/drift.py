"""A drift between streams: events come from the first, then from the second, and so on, at once or gradually, once or in turn.

Near a change at event t the next stream is chosen with probability ``1 / (1 + exp(-4 (n - t) / width))`` (Bifet, Holmes, Pfahringer, Kirkby
and Gavaldà, "New Ensemble Methods for Evolving Data Streams", 2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._cells import words_of
from mapsto.data.streams._cursor import Cursor, Part, merged_types, put_together, same_task, stream_of
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Stream, Task
from mapsto.mapping import StreamSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Drift"]

_CHUNK = 1024
"""Events whose draws are made together."""


class Drift(Stream):
    """Events of `streams`, each of which goes on where it stood when its turn comes again. It ends where the stream whose turn it is ends.

    The time of an event is its number. Its id gets the number of its stream, ``0:17``, since two streams may use one id.

    Raises `SpecError` where neither `at` nor `period` says when, or they do not fit the streams.

    >>> from mapsto import streams
    >>> first, second = streams.sea(thresholds=(5.0,), noise=0.0), streams.sea(thresholds=(15.0,), noise=0.0, seed=1)
    >>> block = next(Drift(streams=(first, second), at=(3,)).open(size=6))
    >>> x = block.x["x1"] + block.x["x2"]
    >>> [label == "yes" for label in block.y] == [bool(x[n] <= (5 if n < 3 else 15)) for n in range(6)]
    True
    """

    contract: ClassVar[dict[str, Any]] = {
        "streams": [{"sea": {"events": 80}}, {"agrawal": {"events": 80}}],
        "period": 25,
        "width": 30,
    }

    streams: tuple[StreamSource, ...] = Field(min_length=2)
    """What events come from, in turn."""
    at: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """The events at which the next stream begins, one fewer than there are streams."""
    period: Annotated[int, Field(ge=1)] | None = None
    """Instead of `at`: events of a turn; after the last stream the first has its turn again."""
    width: int = Field(default=0, ge=0)
    """Events over which a change goes on, half of them before it; 0: it comes at once."""
    seed: int = Field(default=0, ge=0)
    """Of the draws while a change goes on."""

    @property
    def task(self) -> Task:
        return same_task(self._all, where="drift: streams")

    @property
    def bounded(self) -> bool:
        return all(stream.bounded for stream in self._all)

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def fingerprint(self) -> str:
        return self.identity()

    def columns(self) -> Mapping[str, ColumnType]:
        return merged_types(self._all)

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        import numpy as np

        types, task = self.columns(), self.task
        number, places = _place(position, len(self._all))
        cursors = [Cursor(stream, place, size=size) for stream, place in zip(self._all, places, strict=True)]
        while True:
            turns = self._turns(number, number + size)
            parts, count, is_idle = _parts(cursors, turns.tolist())
            after: Json = [number + count, [cursor.position for cursor in cursors]]
            if count or is_idle:
                times = np.arange(number, number + count, dtype=np.float64)
                block = put_together(parts, types, task, after, times=times)
                named = zip(block.ids.tolist(), turns.tolist(), strict=False)
                yield replace(block, ids=words_of([f"{turn}:{name}" if name else "" for name, turn in named]))
            number += count
            if count < size and not is_idle:
                return

    @cached_property
    def _all(self) -> list[Stream]:
        if (self.at is None) == (self.period is None):
            raise SpecError("needs at or period, and not both", where="drift", hint="give one of them")
        if self.at is not None and (len(self.at) != len(self.streams) - 1 or list(self.at) != sorted(set(self.at))):
            raise SpecError(
                f"at has {len(self.at)} events for {len(self.streams)} streams",
                where="drift",
                hint=f"give {len(self.streams) - 1}, each later than the one before",
            )
        return [stream_of(stream, where="drift: streams", reread=True) for stream in self.streams]

    def _turns(self, start: int, stop: int) -> NDArray[Any]:
        """Which stream has its turn at each of these events."""
        import numpy as np

        events = np.arange(start, stop)
        if self.period is not None:
            change = np.maximum((events + self.period // 2) // self.period, 1)  # the nearest one, counted from 1
            changes = change * self.period
        else:
            edges = np.array(self.at)
            change = np.searchsorted((edges[1:] + edges[:-1]) / 2, events, side="right") + 1
            changes = edges[change - 1]
        if not self.width:
            later = events >= changes
        else:
            chance = 1 / (1 + np.exp(np.clip(-4 * (events - changes) / self.width, -700, 700)))
            later = self._draws(start, stop) < chance
        return (change - 1 + later) % len(self.streams)

    def _draws(self, start: int, stop: int) -> NDArray[Any]:
        """A number from 0 to 1 for each of these events."""
        import numpy as np

        first, last = start // _CHUNK, (stop - 1) // _CHUNK
        chunks = [np.random.default_rng((self.seed, chunk)).random(_CHUNK) for chunk in range(first, last + 1)]
        return np.concatenate(chunks)[start - first * _CHUNK : stop - first * _CHUNK]


def _parts(cursors: list[Cursor], turns: list[int]) -> tuple[list[Part], int, bool]:
    """Events of the streams in these turns, as long as they have some; their number, and whether a stream waits for more."""
    found: dict[tuple[int, int], Part] = {}
    for place, turn in enumerate(turns):
        peeked = cursors[turn].peek()
        if peeked is None or not len(peeked[0]):
            return [*found.values()], place, peeked is not None
        block, event = peeked
        part = found.setdefault((turn, id(block)), Part(block, [], []))
        part.events.append(event)
        part.places.append(place)
        cursors[turn].take(1)
    return [*found.values()], len(turns), False


def _place(position: Json, count: int) -> tuple[int, list[Json]]:
    """The number of the next event, and the place in each stream."""
    if position is None:
        return 0, [None] * count
    if isinstance(position, list) and len(position) == 2:
        number, places = position
        if isinstance(number, int) and isinstance(places, list) and len(places) == count:
            return number, places
    raise DataError("its position is of other streams", where="drift", hint="start another store")
