"""Items of a training on labelled examples and a pool: a mini-batch of each, every one in an order of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.kinds import Samples
from mapsto.nn.train.batches import Batch, Batches

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

__all__ = ["Both", "BothBatches"]


class Both(NamedTuple):
    """What a step is made with."""

    labelled: Batch
    """Raw samples (B, ...) and their labels (B,)."""
    pool: Batch | None
    """Raw samples (μB, ...) of the pool; `labels` are their places in it. None where there is no pool."""


class BothBatches:
    """Mini-batches of labelled examples, and beside each `ratio` times as many of the pool.

    Parameters
    ----------
    samples
        The labelled examples; a batch is no larger than they are many.
    pool
        Inputs (M, ...) of the pool; may be empty.
    batch_size, ratio
        B and μ.
    generator
        A stream of its own for its parts.
    fabric
        Says how many processes share a batch.
    """

    workers = 1

    def __init__(
        self,
        samples: Samples,
        pool: NDArray[Any],
        batch_size: int,
        ratio: float,
        generator: Callable[..., np.random.Generator],
        fabric: Fabric,
    ) -> None:
        self._labelled = Batches(samples, batch_size, lambda epoch: generator("order", epoch), fabric)
        self._pool: Batches | None = None
        if len(pool):
            places = Samples(inputs=pool, labels=np.arange(len(pool)), classes=(), preprocessing=samples.preprocessing)
            size = max(1, round(ratio * batch_size))
            self._pool = Batches(places, size, lambda epoch: generator("pool order", epoch), fabric)

    @property
    def per_epoch(self) -> int:
        """Steps in which the pool is gone through once; without one, the labelled examples."""
        return (self._pool or self._labelled).per_epoch

    def __getitem__(self, step: int) -> Both:
        return Both(self._labelled[step], None if self._pool is None else self._pool[step])
