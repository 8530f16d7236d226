"""More requests than an event loop can answer are refused before they are read.

The queue of an event loop is what came while it was busy: it takes all of it at once, and a flood makes every request late. So each
round of the loop is timed, and as many requests go on in a round as keep it short; with a flood from one key the others still have their
share. A refusal costs a small part of an answer, since nothing is parsed. Requests that wait for a model in a thread of its own are not
meant here; `Batcher` bounds those.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

from mapsto.service.refusal import error_body

__all__ = ["Overload"]

_FIRST = 0.0005
"""Seconds that a request is taken to cost before any was timed."""
_SMOOTHING, _GROWTH = 0.1, 4.0
"""Of the cost, and how many times what is known a round may say that it is: a round may be long for other reasons."""
_ROUNDS = 3
"""Of the loop, until a request has its answer: it comes during one, is run in the next and answered in the third."""
_LONGEST = 0.25
"""Seconds of a round at most, so that readiness and metrics answer however long a request may wait."""


class Overload:
    """Decides of each request as it comes, in one event loop.

    Parameters
    ----------
    most_wait
        Seconds that a request may wait for the event loop.
    name_of
        The name of who sends a header's value, as far as that is known at once; empty for anybody else, who share as one.
    refused
        Told of each refusal.
    """

    def __init__(
        self,
        most_wait: float,
        name_of: Callable[[bytes], str] = lambda value: value.decode("latin-1"),
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._goal = min(most_wait / _ROUNDS, _LONGEST)
        self._name_of, self._refused = name_of, refused
        self._each = _FIRST
        """Seconds of a request, smoothed."""
        self._room = max(1.0, self._goal / _FIRST)
        """How many requests go on in a round."""
        self._sum = 0
        """Requests of this round."""
        self._began: float | None = None
        """When it began; None: it has not."""
        self._full = False
        """Whether the last round was: from then on callers are told apart."""
        self._by_name: Counter[str] = Counter()
        self._names = 1
        """How many asked in the last round."""

    def refusal(self, data: bytes) -> tuple[bytes, bool] | None:
        """The answer to a request that does not go on, and whether the connection ends with it; None for one that goes on.

        Parameters
        ----------
        data
            All that a connection has had since the last request. What is not a whole request for a model goes on.
        """
        if self._has_room():
            return None
        key = _key_of(data)
        if key is not None and not self._has_share(key):
            self._refused()
            last = _is_last(data)
            return random.choice(_LAST if last else _ANSWERS), last
        self._sum += 1
        return None

    def admits(self, key: bytes) -> bool:
        """Whether a request goes on that came another way; `key` is what says who sends it."""
        if self._has_room():
            return True
        if not self._has_share(key):
            return False
        self._sum += 1
        return True

    # -- private

    def _has_room(self) -> bool:
        """Whether a request goes on, whoever sends it; then it is counted."""
        if self._began is None:
            self._began = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._taken)
        if not self._full and self._sum < self._room:
            self._sum += 1
            return True
        self._full = True
        return False

    def _has_share(self, key: bytes) -> bool:
        """Whether who sends `key` may still ask in this round."""
        name = self._name_of(key) if key else ""
        taken = self._by_name[name]
        share = self._room / max(self._names, len(self._by_name))
        if self._sum >= (2 * self._room if taken < share else self._room):
            return False
        self._by_name[name] = taken + 1
        return True

    def _taken(self) -> None:
        """Once all that came is taken; what is called soon from here comes after its work."""
        asyncio.get_running_loop().call_soon(self._answered)

    def _answered(self) -> None:
        seconds = time.perf_counter() - (self._began or 0.0)
        each = min(seconds / max(1, self._sum), _GROWTH * self._each)
        self._each += _SMOOTHING * (each - self._each)
        self._full = self._sum >= self._room
        self._room = max(1.0, self._goal / self._each)
        self._names = max(1, len(self._by_name))
        self._by_name.clear()
        self._sum, self._began = 0, None


_PARSED = (b"\r\nexpect:", b"\r\ntransfer-encoding:", b"\r\nupgrade:")
"""Headers of requests of which the parser alone says where they end."""


def _key_of(data: bytes) -> bytes | None:
    """The header by which a request for a model says who sends it; None if it is none, or not whole, or wants to be asked for its body."""
    if not data.startswith(b"POST /v2/models/"):
        return None
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end]
    lower = head.lower()
    length = _value(head, lower, b"\r\ncontent-length:")
    if not length.isdigit() or len(length) > 12 or len(data) != end + 4 + int(length):
        return None
    if any(name in lower for name in _PARSED) or lower.count(b"\r\ncontent-length:") > 1:
        return None
    return _value(head, lower, b"\r\nauthorization:") or _value(head, lower, b"\r\nx-api-key:")


def _is_last(data: bytes) -> bool:
    """Whether the client wants no other answer on its connection."""
    head = data[: data.find(b"\r\n\r\n")].lower()
    wanted = b",".join(line[11:] for line in head.split(b"\r\n") if line.startswith(b"connection:"))
    return b"close" in wanted or (head.partition(b"\r\n")[0].endswith(b"http/1.0") and b"keep-alive" not in wanted)


def _value(head: bytes, lower: bytes, name: bytes) -> bytes:
    place = lower.find(name)
    if place < 0:
        return b""
    place += len(name)
    end = head.find(b"\r\n", place)
    return head[place : end if end >= 0 else len(head)].strip()


def _answer(retry_after: int, more: bytes = b"") -> bytes:
    body = error_body("the service is busy: more requests come than it can answer in time")
    return (
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: %d\r\n%s\r\n%s"
        % (len(body), retry_after, more, body)
    )


_ANSWERS, _LAST = (tuple(_answer(seconds, more) for seconds in (1, 2, 3)) for more in (b"", b"connection: close\r\n"))
"""Jittered, so that clients do not come back at once."""
