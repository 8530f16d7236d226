"""Requests run together where they came together: while one batch runs the next fills, and no timer waits for more.

A model that takes microseconds runs in the event loop itself: what came while a batch ran is the next one. A slower model runs in a
thread. What waits is bounded by the time it is expected to take, not by its number; room is shared among keys, and a request whose
deadline has passed is not run.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mapsto.service.refusal import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Batcher", "Run"]

Run = Callable[["NDArray[Any]"], "Sequence[NDArray[Any]]"]
"""Samples (N, ...) → outputs, each (N, ...)."""
_FAST = 0.001
"""Seconds of a run from which on it goes to a thread."""
_SMOOTHING = 0.1


@dataclass(eq=False)
class _Item:
    samples: NDArray[Any]
    deadline: float
    key: str
    future: asyncio.Future[Sequence[NDArray[Any]]]
    began: float = field(default_factory=time.perf_counter)
    ran: tuple[float, float, int] | None = None
    """When its batch began and ended, and the batch's samples; only where it is traced."""


class Batcher:
    """A model's queue.

    Parameters
    ----------
    run
        The model; called from one thread at a time.
    seconds
        Of one sample, as measured when it was loaded.
    most
        Samples of a batch.
    most_wait
        Seconds that a request may be expected to wait; beyond it is refused with 429.
    observe
        Told of each batch: its samples, its seconds, and the seconds that its first request waited.
    """

    trace: ClassVar[Callable[[float, float, float, int, int], None] | None] = None
    """Told of each request that was answered: see `Tracing.batch`."""

    def __init__(
        self,
        run: Run,
        *,
        seconds: float,
        most: int = 64,
        most_wait: float = 1.0,
        observe: Callable[[int, float, float], None] | None = None,
    ) -> None:
        self._run, self._most, self._most_wait = run, most, most_wait
        self._observe = observe
        self._each = seconds
        """Seconds of a sample within batches, smoothed."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="model") if seconds >= _FAST else None
        self._queues: OrderedDict[str, deque[_Item]] = OrderedDict()
        self._waiting = 0
        """Samples in the queues."""
        self._in_flight = 0
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """Samples that wait or run."""
        return self._waiting + self._in_flight

    @property
    def wait(self) -> float:
        """Seconds that a request of now is expected to wait."""
        return self.waiting * self._each

    async def submit(self, samples: NDArray[Any], *, deadline: float, key: str = "") -> Sequence[NDArray[Any]]:
        """The outputs for samples (n, ...).

        Parameters
        ----------
        deadline
            By `time.perf_counter`: after it nothing is done for the request.
        key
            Whose it is: queues of several are served in turn.

        Raises
        ------
        Refusal
            429: it would wait too long; 504: its deadline has passed; 500: the model fails on it.
        """
        now = time.perf_counter()
        if not len(samples):
            raise Refusal(400, "the request holds no sample")
        if now > deadline:
            raise Refusal(504, "the deadline of the request has passed")
        self._admit(len(samples), key, min(self._most_wait, deadline - now))
        future: asyncio.Future[Sequence[NDArray[Any]]] = asyncio.get_running_loop().create_future()
        item = _Item(samples, deadline, key, future)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(item)
        self._waiting += len(samples)
        self._schedule()
        trace = Batcher.trace
        if trace is None:
            return await future
        found = await future
        if item.ran is not None:
            began, ended, count = item.ran
            trace(item.began, began, ended, len(samples), count)
        return found

    async def closed(self) -> None:
        """Waits until nothing is waiting or running."""
        while self.waiting:
            await asyncio.sleep(0.005)
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    # -- private

    def _admit(self, count: int, key: str, most: float) -> None:
        """Raises `Refusal` where it would wait too long. A key with less than its share may still enter, at twice the bound."""
        wait = self.wait
        if wait <= most:
            return
        own = sum(len(item.samples) for item in self._queues.get(key, ()))
        share = self._waiting / max(1, len(self._queues) + (key not in self._queues))
        if own + count <= share and wait <= 2 * most:
            return
        raise Refusal(
            429,
            f"the model is busy: a request would wait {wait:.2g} s, and at most {most:.2g} s are allowed",
            retry_after=wait * random.uniform(0.5, 1.5),
            reason="busy",
        )

    def _schedule(self) -> None:
        if not self._scheduled and not self._in_flight and self._waiting:
            self._scheduled = True
            # behind what the event loop has at hand already: all requests that came while the last batch ran
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        items = self._next()
        if not items:
            self._schedule()
            return
        count = sum(len(item.samples) for item in items)
        self._in_flight = count
        began = time.perf_counter()
        if self._threads is None:
            self._finish(items, self._answers(items), count, began)
            return
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._answers, items)
        work.add_done_callback(lambda done: self._finish(items, done.result(), count, began))

    def _next(self) -> list[_Item]:
        """Items of one shape for a batch, from each key's queue in turn; those that nobody waits for any more are dropped."""
        now, chosen, count = time.perf_counter(), list[_Item](), 0
        shape: tuple[int, ...] | None = None
        while self._queues and count < self._most:
            key, queue = next(iter(self._queues.items()))
            item = queue[0]
            size = len(item.samples)
            gone = item.future.done()
            if gone or now > item.deadline:
                queue.popleft()
                self._waiting -= size
                if not gone:
                    item.future.set_exception(Refusal(504, "the deadline of the request has passed while it waited"))
            elif chosen and (item.samples.shape[1:] != shape or count + size > self._most):
                break
            else:
                queue.popleft()
                self._waiting -= size
                chosen.append(item)
                count, shape = count + size, item.samples.shape[1:]
            if queue:
                self._queues.move_to_end(key)
            else:
                del self._queues[key]
        return chosen

    def _answers(self, items: list[_Item]) -> list[Sequence[NDArray[Any]] | Exception]:
        """Of each item. Where the batch fails each runs by itself, so that one bad item costs no other its answer."""
        try:
            if len(items) == 1:
                return [self._whole(items[0].samples)]
            outputs = self._whole(np.concatenate([item.samples for item in items]))
        except Exception as error:  # a runtime's errors have no common base class
            if len(items) == 1:
                return [error]
            return [answer for item in items for answer in self._answers([item])]
        found: list[Sequence[NDArray[Any]] | Exception] = []
        start = 0
        for item in items:
            stop = start + len(item.samples)
            found.append([output[start:stop] for output in outputs])
            start = stop
        return found

    def _whole(self, samples: NDArray[Any]) -> Sequence[NDArray[Any]]:
        if len(samples) <= self._most:
            return self._run(samples)
        parts = [self._run(samples[start : start + self._most]) for start in range(0, len(samples), self._most)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _finish(
        self, items: list[_Item], answers: list[Sequence[NDArray[Any]] | Exception], count: int, began: float
    ) -> None:
        seconds = time.perf_counter() - began
        self._in_flight = 0
        self._each += _SMOOTHING * (seconds / count - self._each)
        if self._observe is not None:
            self._observe(count, seconds, began - min(item.began for item in items))
        for item, answer in zip(items, answers, strict=True):
            if Batcher.trace is not None:
                item.ran = (began, began + seconds, count)
            if item.future.done():  # its client has gone
                continue
            if isinstance(answer, Exception):
                text = (str(answer).splitlines() or [type(answer).__name__])[0]
                item.future.set_exception(Refusal(500, f"the model fails on this request: {text}"))
            else:
                item.future.set_result(answer)
        self._schedule()
