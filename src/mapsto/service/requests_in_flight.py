"""Requests that a worker has begun and not answered, bounded by the time that one more would wait.

Where the queue in front of a handler cannot be seen, as that of gRPC's core, the time of a request is taken from how many were answered
while there were any, and as many are begun as are answered in the time that a request may wait. With a flood from one caller the others
have their share.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

__all__ = ["RequestsInFlight"]

_FIRST = 0.0005
"""Seconds that a request is taken to cost before any was timed."""
_SPAN = 0.1
"""Seconds with requests over which they are counted."""
_SMOOTHING = 0.3
_LEAST = 8
"""Requests that may always be in flight, since they may wait for one another."""


class RequestsInFlight:
    """The requests of one event loop.

    Parameters
    ----------
    most_wait
        Seconds that a request may be expected to wait.
    clock
        Seconds.

    >>> now, requests = [0.0], RequestsInFlight(1.0, clock=lambda: now[0])
    >>> for _ in range(200):
    ...     _ = requests.begin("a")
    ...     now[0] += 0.06
    ...     requests.end("a")
    >>> [requests.begin("a") for _ in range(20)].count(True), requests.begin("b")
    (17, True)
    """

    def __init__(self, most_wait: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._most_wait, self._clock = most_wait, clock
        self._each = _FIRST
        self._by_name: Counter[str] = Counter()
        self._count = 0
        self._since = self._busy = 0.0
        """When the time began that is not in `_busy` yet; seconds with requests since they were last counted."""
        self._ended = 0

    @property
    def count(self) -> int:
        """Of those in flight."""
        return self._count

    def begin(self, name: str) -> bool:
        """Whether a request of a caller is begun; then `end` is to be told."""
        room = max(_LEAST, self._most_wait / self._each)
        if self._count >= room:
            own = self._by_name[name]
            names = len(self._by_name) + (name not in self._by_name)
            if own >= room / names or self._count >= 2 * room:
                return False
        if not self._count:
            self._since = self._clock()
        self._count += 1
        self._by_name[name] += 1
        return True

    def end(self, name: str) -> None:
        """A request has its answer."""
        self._count -= 1
        self._by_name[name] -= 1
        if self._by_name[name] <= 0:
            del self._by_name[name]
        self._ended += 1
        now = self._clock()
        if not self._count or self._busy + now - self._since > _SPAN:
            self._busy += now - self._since
            self._since = now
        if self._busy > _SPAN:
            self._each += _SMOOTHING * (self._busy / self._ended - self._each)
            self._busy, self._ended = 0.0, 0
