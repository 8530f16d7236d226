"""Mini-batches of texts of like length: padding random batches to the longest of each would double the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mapsto.nn.train.batches import EpochOrder
from mapsto_runtime.preprocessing.texts import trimmed

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

__all__ = ["LengthBatches", "TextBatch"]

_SORTED = 50
"""Batches whose texts are sorted by length among themselves; the batches are then shuffled."""


class TextBatch(NamedTuple):
    """Token ids (B, L), padded to the longest of the batch, and the step that they are for."""

    ids: NDArray[np.int64]
    step: int


class LengthBatches:
    """Each epoch goes once through a permutation, part by part sorted by length; what is left over of the last batch is left out.

    Parameters
    ----------
    ids, padding
        Texts (N, L) and the id that fills them.
    batch_size
        Texts of a step over all ranks; no more than there are.
    generator
        Epoch → a NumPy generator for its order.
    fabric
        Where there are several ranks, each gets its share of every batch.
    """

    workers = 1

    def __init__(
        self,
        ids: NDArray[np.int64],
        padding: int,
        batch_size: int,
        generator: Callable[[int], np.random.Generator],
        fabric: Fabric,
    ) -> None:
        self._ids, self._padding, self._generator = ids, padding, generator
        self._lengths = (ids != padding).sum(1)
        self._size = min(batch_size, len(ids))
        self.per_epoch = len(ids) // self._size
        """Steps of an epoch."""
        self._order = EpochOrder(self.per_epoch, self._batches_of, fabric)

    def __getitem__(self, step: int) -> TextBatch:
        return TextBatch(trimmed(self._ids[self._order[step]], self._padding), step)

    def _batches_of(self, epoch: int) -> NDArray[np.int64]:
        rng = self._generator(epoch)
        order = rng.permutation(len(self._ids))[: self.per_epoch * self._size]
        part = _SORTED * self._size
        parts = [order[start : start + part] for start in range(0, len(order), part)]
        placed = np.concatenate([each[np.argsort(self._lengths[each], kind="stable")] for each in parts])
        return rng.permutation(placed.reshape(self.per_epoch, self._size))
