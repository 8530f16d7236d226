"""Whether the time of a stream runs forward: events are taken as they come, and where one is earlier than those before, it is told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Clock"]


class Clock:
    """The latest time so far.

    >>> clock = Clock()
    >>> clock.check(np.array([1.0, np.nan, 2.0]), 0), clock.check(np.array([3.0, 1.5, 1.0]), 3)
    (None, 'time runs backwards: event 5 is 1.5 seconds earlier than one before it; events are taken as they come')
    >>> clock.check(np.array([0.0]), 6), clock.backwards
    (None, 3)
    """

    def __init__(self) -> None:
        self.latest = -np.inf
        self.backwards = 0
        """Events that were earlier than one before them."""

    def check(self, times: NDArray[np.float64], before: int) -> str | None:
        """What is to be told of a block's times (N,), NaN where an event has none, after so many events; None mostly."""
        if len(times) == 1 and times[0] >= self.latest and times[0] < np.inf:
            self.latest = float(times[0])
            return None
        there = np.flatnonzero(np.isfinite(times))
        if not len(there):
            return None
        latest = np.maximum.accumulate(np.concatenate(([self.latest], times[there])))
        early = np.flatnonzero(times[there] < latest[:-1])
        self.latest = float(latest[-1])
        first, self.backwards = self.backwards == 0, self.backwards + len(early)
        if not first or not len(early):
            return None
        place = int(early[0])
        event = before + int(there[place]) + 1
        return (
            f"time runs backwards: event {event} is {latest[place] - times[there][place]:g} seconds earlier than one before it; "
            "events are taken as they come"
        )

    def snapshot(self) -> dict[str, float]:
        """The state, as JSON."""
        return {} if np.isinf(self.latest) else {"latest": self.latest, "backwards": self.backwards}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from another's state."""
        self.latest, self.backwards = float(state.get("latest", -np.inf)), int(state.get("backwards", 0))
