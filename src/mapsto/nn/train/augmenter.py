"""Batches as a network in training is given them: changed at random, prepared, mixed.

Samples are changed one by one as they are read, before they are prepared, so that black and white are the same for every network; what
mixes samples does so once they are prepared. Each operation has a generator of its own, seeded from (step key, item, rank, its place in the
list): teacher and student, and a run that goes on after a stop, see the same changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from mapsto.context import Context
from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._apply import changed, generator_of, mixed
from mapsto.kinds import Preprocessing
from mapsto.nn.network.preprocess import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Augmenter"]


class Augmenter:
    """Applies the list of augmentations of one mapping.

    Parameters
    ----------
    operations
        What is done, in order.
    ctx
        Its key decides every draw; samples are moved to its device.
    classes
        How many classes the labels are numbers of; 0 where they are none.
    """

    def __init__(self, operations: Sequence[Augmentation], ctx: Context, *, classes: int = 0) -> None:
        self._operations, self._ctx, self._classes = operations, ctx, classes
        self._device, self._rank = ctx.device, ctx.fabric.global_rank

    def __call__(self, raw: NDArray[Any], labels: NDArray[Any], item: int, preprocessing: Preprocessing) -> Drawn:
        """The input and the targets of a network: raw samples (N, ...) and labels (N,) or (N, K) of item number `item`."""
        return self.prepared(self.changed(raw, item), labels, item, preprocessing)

    def changed(self, raw: NDArray[Any], item: int) -> Tensor:
        """Raw samples on the device, each changed by itself."""
        samples = torch.as_tensor(raw, device=self._device)
        return changed(self._operations, samples, partial(self._generator, item))

    def prepared(self, samples: Tensor, labels: NDArray[Any], item: int, preprocessing: Preprocessing) -> Drawn:
        """Changed samples as the network of that preprocessing takes them, mixed with one another where that is asked for."""
        x = prepare(samples, preprocessing, device=self._device)
        drawn = Drawn(x=x, targets=torch.as_tensor(labels, device=self._device), classes=self._classes)
        return mixed(self._operations, drawn, partial(self._generator, item))

    def _generator(self, item: int, place: int) -> Generator:
        return generator_of(self._ctx.seed_for("augment", item, self._rank, place))
