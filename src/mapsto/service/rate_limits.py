"""Requests a second of each caller: a bucket that fills at the caller's rate and holds its burst."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from mapsto.service.keys import Caller
from mapsto.service.refusal import Refusal

__all__ = ["RateLimits"]

_MOST = 10_000
"""Callers that are remembered; who comes back later than so many others finds a full bucket."""


class RateLimits:
    """The buckets of a process.

    Parameters
    ----------
    clock
        Seconds.

    >>> from mapsto.service.keys import Caller
    >>> now, limits = [0.0], RateLimits(clock=lambda: now[0])
    >>> slow = Caller("a", "t", frozenset(), rate=0.5, burst=2)
    >>> limits.take(slow), limits.take(slow)
    (None, None)
    >>> limits.take(slow)
    Traceback (most recent call last):
    mapsto.service.refusal.Refusal: this key may make 0.5 requests a second, 2 at once
    >>> now[0] = 2.0
    >>> limits.take(slow)

    >>> limits.charge(slow, 3)
    >>> now[0] = 7.9
    >>> limits.take(slow)
    Traceback (most recent call last):
    mapsto.service.refusal.Refusal: this key may make 0.5 requests a second, 2 at once
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What a caller has left, and when that was."""

    def take(self, caller: Caller) -> None:
        """Count a request. Raises `Refusal` (429) for one too many, with the seconds until it may be made."""
        rate = caller.rate
        if rate is None:
            return
        now = self._clock()
        left, at = self._buckets.pop(caller.name, (caller.burst, now))
        left = min(caller.burst, left + (now - at) * rate)
        taken = left >= 1
        self._buckets[caller.name] = (left - taken, now)
        while len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        if not taken:
            raise Refusal(
                429,
                f"this key may make {rate:g} requests a second, {caller.burst:g} at once",
                retry_after=(1 - left) / rate,
            )

    def charge(self, caller: Caller, more: int) -> None:
        """Count so many requests more, of which none is refused: the bucket owes them, and fills from there."""
        left, at = self._buckets.get(caller.name, (caller.burst, self._clock()))
        self._buckets[caller.name] = (left - more, at)
