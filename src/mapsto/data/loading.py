"""What processes advance over: batches and groups of episodes by step, computed ahead in threads."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mapsto.data.checks import require_some
from mapsto.kinds import Episode, Episodes, Samples

__all__ = ["Batch", "BatchOfEpisodes", "Batches", "Prefetched", "prefetch"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Addressable(Protocol[T_co]):
    """`items[step]` is the same whenever it is asked for."""

    def __getitem__(self, step: int, /) -> T_co: ...


class Batch(NamedTuple):
    """Raw samples of one step."""

    inputs: NDArray[Any]
    labels: NDArray[Any]
    epoch: int
    last_of_epoch: bool


class Batches:
    """Batches of samples, addressable by step: each epoch goes through all samples in an order of its own.

    Parameters
    ----------
    samples
        At least one.
    batch_size
        Samples of a batch; the last of an epoch may hold fewer.
    seed_for
        A seed for its arguments (`Context.seed_for`); called with ``("epoch", number)``.
    epochs
        How often to go through the samples.
    shuffle
        Draw each epoch's order; else the order is that of the samples.
    drop_last
        Leave out an epoch's smaller last batch, unless it is its only one.

    >>> from mapsto.kinds import Preprocessing
    >>> five = Samples(inputs=np.arange(5.0)[:, None], labels=np.arange(5), classes=tuple("abcde"),
    ...                preprocessing=Preprocessing(kind="none"))
    >>> batches = Batches(five, 2, lambda *parts: 7, epochs=2, shuffle=False)
    >>> len(batches), batches[2].labels.tolist(), batches[2].last_of_epoch, batches[3].epoch
    (6, [4], True, 1)
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed_for: Callable[..., int],
        *,
        epochs: int,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.samples = require_some(samples, where="batches")
        self.batch_size = batch_size
        self.epochs = epochs
        whole, rest = divmod(len(samples), batch_size)
        self.steps_per_epoch = max(1, whole + (rest > 0 and not drop_last))
        self._seed_for = seed_for
        self._shuffle = shuffle
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch

    def indices(self, step: int) -> NDArray[np.int64]:
        """Which samples the batch of a step holds, shape (up to batch_size,)."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]

    def __getitem__(self, step: int, /) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        chosen = self.indices(step)
        epoch, number = divmod(step, self.steps_per_epoch)
        last = number == self.steps_per_epoch - 1
        return Batch(self.samples.inputs[chosen], self.samples.labels[chosen], epoch, last)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = self._orders.get(epoch)
        if order is None:
            count = len(self.samples)
            order = np.arange(count)
            if self._shuffle:
                order = np.random.default_rng(self._seed_for("epoch", epoch)).permutation(count)
            # Threads that work ahead are at most one epoch apart; assigning whole dictionaries needs no lock.
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {epoch: order}
        return order


class BatchOfEpisodes:
    """The episodes of each step: `tasks_per_step` of them, numbered on from `offset`.

    Parameters
    ----------
    episodes
        Where they are drawn.
    tasks_per_step
        Episodes of a step.
    offset
        The number of the first episode.
    """

    def __init__(self, episodes: Episodes, tasks_per_step: int, offset: int = 0) -> None:
        self.episodes = episodes
        self.tasks_per_step = tasks_per_step
        self.offset = offset

    def __getitem__(self, step: int, /) -> tuple[Episode, ...]:
        first = self.offset + step * self.tasks_per_step
        return tuple(self.episodes[index] for index in range(first, first + self.tasks_per_step))


class Prefetched(Generic[T]):
    """Items that are computed ahead in threads; what `prefetch` gives. Close it, or use it in a ``with`` statement."""

    def __init__(self, items: Addressable[T], workers: int, depth: int) -> None:
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


def prefetch(items: Addressable[T], workers: int = 1, depth: int = 4) -> Prefetched[T]:
    """Items whose next `depth` steps are computed in `workers` threads while one is in use.

    An item's own error is raised when it is asked for. Items must not draw from global generators.

    >>> with prefetch([n * n for n in range(5)], workers=2) as squares:
    ...     [squares[step] for step in (0, 1, 2, 4)]
    [0, 1, 4, 16]
    """
    return Prefetched(items, workers, depth)
