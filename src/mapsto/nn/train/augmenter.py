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
from mapsto.data.augment._columns import columns_of
from mapsto.data.augment._pixels import without_native_code
from mapsto.data.augment._sheet import picture, rows_table
from mapsto.data.augment._words import words_of
from mapsto.kinds import Preprocessing, Samples
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
    samples
        What batches are drawn from: how its columns spread, and its classes.
    classes
        How many classes the labels are numbers of, where there are no `samples`; 0 where they are none.
    """

    def __init__(
        self, operations: Sequence[Augmentation], ctx: Context, samples: Samples | None = None, *, classes: int = 0
    ) -> None:
        self._operations, self._ctx = tuple(each.bound(ctx) for each in operations), ctx
        self._classes = classes if samples is None else len(samples.classes)
        self._columns = columns_of(samples) if samples is not None and operations else None
        self._words = words_of(samples) if samples is not None and operations else None
        self._device, self._rank = ctx.device, ctx.fabric.global_rank
        slower = without_native_code(operations, ctx.note) if self._device.type == "cpu" else None
        if slower is not None:
            ctx.note(f"images are changed without compiled code, which takes longer and gives the same: {slower}")
        if samples is not None and operations:
            self._show(samples)
        if self._columns is not None and self._columns.categorical.any():
            for name in (each.name for each in operations if each.mixes):
                ctx.note(
                    f"{name} blends categories too: a mixed row is in part of one and in part of another, as its label is"
                )

    def _show(self, samples: Samples) -> None:
        """Attach what the operations make of a few training samples; what cannot be drawn so, such as token ids, is not shown."""
        seed = self._ctx.seed_for("augment", "sheet")
        if samples.inputs.ndim == 4:
            self._ctx.attach("training_images_then_augmented", picture(self._operations, samples, seed=seed))
        elif self._columns is not None and samples.inputs.ndim == 2:
            self._ctx.attach("augmented_rows", rows_table(self._operations, samples, seed=seed))

    def __call__(self, raw: NDArray[Any], labels: NDArray[Any], item: int, preprocessing: Preprocessing) -> Drawn:
        """The input and the targets of a network: raw samples (N, ...) and labels (N,) or (N, K) of item number `item`."""
        return self.prepared(self.changed(raw, item, labels), labels, item, preprocessing)

    def changed(self, raw: NDArray[Any], item: int, labels: NDArray[Any] | None = None) -> Tensor:
        """Raw samples on the device, changed by all that keeps their targets; `labels` as `__call__` has them."""
        return changed(
            self._operations,
            torch.as_tensor(raw, device=self._device),
            partial(self._generator, item),
            targets=None if labels is None else torch.as_tensor(labels, device=self._device),
            classes=self._classes,
            columns=self._columns,
            words=self._words,
        )

    def prepared(self, samples: Tensor, labels: NDArray[Any], item: int, preprocessing: Preprocessing) -> Drawn:
        """Changed samples as the network of that preprocessing takes them, mixed with one another where that is asked for."""
        x = prepare(samples, preprocessing, device=self._device)
        drawn = Drawn(x=x, targets=torch.as_tensor(labels, device=self._device), classes=self._classes)
        return mixed(self._operations, drawn, partial(self._generator, item))

    def _generator(self, item: int, place: int) -> Generator:
        return generator_of(self._ctx.seed_for("augment", item, self._rank, place))
