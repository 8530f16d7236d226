"""How fast a learner is and what memory it takes: measured, so another figure each time, and part of no digest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Pace"]

_BUCKETS, _PER_DECADE, _LEAST = 181, 20, 1e-7
"""Times from 0.1 µs to 100 s an event, a bucket each twentieth of a decade: a percentile is right to 6 %."""
_MOST_ROWS = 200


class Pace:
    """Counts the time that blocks took.

    >>> pace = Pace()
    >>> pace.took(0.0256, 256)
    >>> pace.took(0.01, 1)
    >>> told = pace.told()
    >>> round(told["p50_us"]), round(told["p99_us"]), round(told["events_per_second"])
    (100, 100, 7219)
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._seconds, self._events = 0.0, 0
        self._stride = 1
        self._marks = 0
        self._rows: list[list[float]] = []

    def took(self, seconds: float, events: int) -> None:
        """A block of so many events took so long to be answered and learnt."""
        if events:
            place = math.log10(max(seconds / events, _LEAST) / _LEAST) * _PER_DECADE
            self._counts[min(round(place), _BUCKETS - 1)] += events
            self._seconds += seconds
            self._events += events

    def mark(self, n: int) -> None:
        """Note rate and memory at event `n`; of many notes every second, fourth, … is kept."""
        if self._marks % self._stride == 0:
            self._rows.append([float(n), self._seconds, float(resident_bytes())])
        self._marks += 1
        if len(self._rows) > _MOST_ROWS:
            self._rows, self._stride = self._rows[::2], 2 * self._stride

    def told(self) -> dict[str, Any]:
        """Events a second of learning alone, median and 99th percentile of its time an event in µs, memory in bytes; `rows` over time."""
        if not self._events:
            return {}
        return {
            "events_per_second": self._events / max(self._seconds, 1e-9),
            "seconds": self._seconds,
            "p50_us": self._percentile(0.5),
            "p99_us": self._percentile(0.99),
            "memory_bytes": resident_bytes(),
            "rows": [list(row) for row in self._rows],
        }

    def snapshot(self) -> dict[str, Any]:
        """The state."""
        numbers = [self._seconds, self._events, self._stride, self._marks]
        return {"counts": self._counts, "numbers": numbers, "rows": [list(row) for row in self._rows]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from another's state."""
        self._counts = state["counts"]
        self._seconds, self._events, self._stride, self._marks = state["numbers"]
        self._rows = [list(row) for row in state["rows"]]

    def _percentile(self, share: float) -> float:
        place = int(np.searchsorted(np.cumsum(self._counts), share * self._events))
        return 1e6 * _LEAST * 10 ** (place / _PER_DECADE)


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    import psutil

    return int(psutil.Process().memory_info().rss)
