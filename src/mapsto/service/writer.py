"""One thread that stores feedback: what waits goes into one transaction, and is acknowledged when that is durable."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial

from mapsto.errors import StoreError
from mapsto.service.refusal import Refusal
from mapsto.service.state import FeedbackRow, State

__all__ = ["Writer"]

_MOST = 256
"""Rows of a transaction."""
_Item = tuple[Sequence[FeedbackRow], "asyncio.AbstractEventLoop", "asyncio.Future[list[int]]"]


class Writer:
    """A queue before a state.

    Parameters
    ----------
    most_waiting
        Requests that may wait; beyond it feedback is refused with 503.
    """

    def __init__(self, state: State, *, most_waiting: int = 4096) -> None:
        self._state = state
        self._queue: queue.Queue[_Item | None] = queue.Queue(most_waiting)
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    async def append(self, rows: Sequence[FeedbackRow]) -> list[int]:
        """Positions of the rows, once they are durable; see `State.append`.

        Raises `Refusal` (503) where the state cannot be written or too much waits: then none of them is stored.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[int]] = loop.create_future()
        try:
            self._queue.put_nowait((rows, loop, future))
        except queue.Full as error:
            raise Refusal(503, "too much feedback waits to be stored", retry_after=1.0) from error
        return await future

    def close(self) -> None:
        """Stores what waits, and ends."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            first = self._queue.get()
            if first is None:
                return
            items, count = [first], len(first[0])
            while count < _MOST:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    ended = True
                    break
                items.append(item)
                count += len(item[0])
            self._store(items)

    def _store(self, items: list[_Item]) -> None:
        try:
            positions = self._state.append([row for rows, _, _ in items for row in rows])
        except StoreError as error:
            refusal = Refusal(503, f"the feedback was not stored: {error.what}", retry_after=5.0)
            for _, loop, future in items:
                _tell(loop, future, partial(future.set_exception, refusal))
            return
        start = 0
        for rows, loop, future in items:
            own = positions[start : start + len(rows)]
            start += len(rows)
            _tell(loop, future, partial(future.set_result, own))


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[list[int]], say: Callable[[], None]) -> None:
    def done() -> None:
        if not future.done():  # its client has gone; what was stored stays
            say()

    try:
        loop.call_soon_threadsafe(done)
    except RuntimeError:  # the loop has ended
        return
