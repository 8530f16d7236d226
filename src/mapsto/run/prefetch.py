"""Items of a process computed ahead in threads, so that drawing the next batch costs the training no time."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

__all__ = ["Prefetched"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Addressable(Protocol[T_co]):
    """`items[step]` is the same whenever it is asked for."""

    def __getitem__(self, step: int, /) -> T_co: ...


class Prefetched(Generic[T]):
    """Items whose next `depth` steps are computed in `workers` threads while one is in use.

    An item's own error is raised when it is asked for. Items must not draw from global generators. Close it, or use it in a
    ``with`` statement.

    >>> with Prefetched([n * n for n in range(5)], workers=2) as squares:
    ...     [squares[step] for step in (0, 1, 2, 4)]
    [0, 1, 4, 16]
    """

    def __init__(self, items: Addressable[T], workers: int = 1, depth: int = 4) -> None:
        self._items = items
        self._depth = depth
        self._ahead: dict[int, Future[T]] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mapsto-prefetch")
        self._end = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]  # pyright: ignore
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __getitem__(self, step: int, /) -> T:
        if not self._stop.alive:
            return self._items[step]
        for other in [s for s in self._ahead if not step <= s <= step + self._depth]:
            self._ahead.pop(other).cancel()
        last = step + self._depth if self._end is None else min(step + self._depth, self._end - 1)
        for ahead in range(step, max(last, step) + 1):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(self._items.__getitem__, ahead)
        return self._ahead.pop(step).result()

    def __enter__(self) -> Prefetched[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was computed ahead and wait for the threads; items asked for later are computed when asked."""
        self._stop()
        self._ahead.clear()
        self._pool.shutdown(wait=True)
