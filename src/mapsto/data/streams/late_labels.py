"""Any stream with its labels later: each event is a question first, and its label comes as an event of its own, by id.

The labels are read by a second reader that lies behind the first, so that memory and positions stay small, however late they come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from pydantic import Field

from mapsto.data.streams._cells import words_of
from mapsto.data.streams._cursor import Cursor, Part, put_together, stream_of
from mapsto.data.streams._derived import Derived
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Stream, Task
from mapsto.mapping import StreamSource

__all__ = ["LateLabels"]


class LateLabels(Derived):
    """The events of `stream`, whose labels come some events or seconds later; what then is left comes in the end.

    Events without an id are named by their number, ``#0``, ``#1``, …. By seconds, a label comes before the first question that is so much
    later; an event without a time has the time of the one before it.

    Raises `SpecError` where neither `events` nor `seconds` says how late, or for a stream of which labels cannot be read again.

    >>> from mapsto import streams
    >>> block = next(LateLabels(stream=streams.sea(), events=2).open(size=5))
    >>> [(name, "question" if asks else "label") for name, asks in zip(block.ids, block.has_x)]
    [('0', 'question'), ('1', 'question'), ('0', 'label'), ('2', 'question'), ('1', 'label')]
    """

    contract: ClassVar[dict[str, Any]] = {"stream": {"agrawal": {"events": 120}}, "events": 50}

    stream: StreamSource
    """What events come from."""
    events: int | None = Field(default=None, ge=1)
    """Questions that come before the label of one."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds after which a label comes, by the times of events."""

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        reading = _Reading(self, self._inner, position, size)
        types, task = self.columns(), self.task
        while True:
            block, is_idle = reading.next_block(size, types, task)
            if len(block) or is_idle:
                yield block
            if len(block) < size and not is_idle:
                return

    def source(self) -> Stream:
        stream = stream_of(self.stream, where="late_labels: stream", reread=True)
        if (self.events is None) == (self.seconds is None):
            raise SpecError("needs events or seconds, and not both", where="late_labels", hint="give one of them")
        return stream


class _Reading:
    """Two readers of a stream: of questions, and of the labels that are due."""

    def __init__(self, settings: LateLabels, stream: Stream, position: Json, size: int) -> None:
        begin: dict[str, Any] = {"ask": None, "tell": None, "passed": [0, 0], "times": [None, None]}
        state = cast("dict[str, Any]", begin if position is None else position)
        if not isinstance(state, dict) or state.keys() != begin.keys():
            raise DataError(f"{position} is no position of late labels", hint="start another store")
        self._events, self._seconds = settings.events, settings.seconds
        self._ask, self._tell = (Cursor(stream, state[name], size=size) for name in ("ask", "tell"))
        self._asked, self._told = state["passed"]
        """Events that each reader has passed."""
        self._asked_time, self._told_time = state["times"]
        """The time of the last event with one that each has passed."""

    def next_block(self, size: int, types: Mapping[str, ColumnType], task: Task) -> tuple[Block, bool]:
        """At most `size` events, and whether the stream waits for more."""
        import numpy as np

        parts: dict[tuple[bool, int], Part] = {}
        times: list[float] = []
        ids: list[str] = []
        is_idle = False
        while len(times) < size:
            question = self._ask.peek()
            if question is not None and not len(question[0]):
                is_idle = True
                break
            label = self._due(question)
            if label is None and question is None:
                break
            if label is not None:
                block, event = label
                there, number, time = (
                    block.has_y[event] and event not in block.broken,
                    self._told,
                    self._tell_one(label),
                )
            else:
                block, event = cast("tuple[Block, int]", question)
                there, number, time = block.has_x[event], self._asked, self._ask_one(block, event)
            if there:
                tells = label is not None
                part = parts.setdefault((tells, id(block)), Part(block, [], [], x=not tells, y=tells))
                part.events.append(event)
                part.places.append(len(times))
                ids.append(str(block.ids[event]) or f"#{number}")
                times.append(time)
        position: Json = {
            "ask": self._ask.position,
            "tell": self._tell.position,
            "passed": [self._asked, self._told],
            "times": [self._asked_time, self._told_time],
        }
        made = put_together(
            [*parts.values()], types, task, position, times=np.array(times, np.float64), ids=words_of(ids)
        )
        return made, is_idle

    def _due(self, question: tuple[Block, int] | None) -> tuple[Block, int] | None:
        """The next event whose label comes before a question; the question is None where there are no more."""
        if self._told == self._asked:
            return None
        if question is not None and self._events is not None and self._asked - self._told < self._events:
            return None
        label = self._tell.peek()
        if label is None or not len(label[0]):
            raise DataError(
                "events that were asked about cannot be read again for their labels",
                where="late_labels",
                hint="give a stream that is the same for whoever opens it",
            )
        if question is None or self._seconds is None:
            return label
        asked, told = _time(question, self._asked_time), _time(label, self._told_time)
        if asked is None or told is None:
            raise DataError(
                "events have no times", where="late_labels: seconds", hint="set the stream's time, or events"
            )
        return label if asked >= told + self._seconds else None

    def _ask_one(self, block: Block, event: int) -> float:
        """Pass a question; its time."""
        self._asked_time = _time((block, event), self._asked_time)
        self._asked += 1
        self._ask.take(1)
        return float(block.times[event])

    def _tell_one(self, label: tuple[Block, int]) -> float:
        """Pass an event for its label; the time at which that comes."""
        self._told_time = _time(label, self._told_time)
        self._told += 1
        self._tell.take(1)
        time = self._asked_time if self._seconds is None or self._told_time is None else self._told_time + self._seconds
        return math.nan if time is None else time


def _time(place: tuple[Block, int], before: float | None) -> float | None:
    """The time of an event, or of the one before it where it has none."""
    time = float(place[0].times[place[1]])
    return time if math.isfinite(time) else before
