"""Changed copies of raw samples, as a set of tasks makes them: bytes stay bytes, rows stay rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.augment import Augmentation
from mapsto.errors import DataError
from mapsto.kinds import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["changed_alike", "require_images", "variants"]


def variants(
    samples: Samples,
    indices: NDArray[np.int64],
    operations: Sequence[Augmentation],
    drop: float,
    random: np.random.Generator,
) -> NDArray[Any]:
    """A changed copy of each chosen sample.

    Parameters
    ----------
    samples, indices
        What to copy, shape (M,).
    operations
        What is done to each copy, in order: the same as to samples in training, none that mixes them.
    drop
        Share of the pixels of an image, or of the numbers of a row, that become what is blank: 0, or the lowest value of images that are
        no bytes.
    random
        Decides every draw.

    Returns
    -------
    ndarray
        Shape (M, ...), of the samples' type.
    """
    import torch

    from mapsto.data.augment._apply import changed, generator_of
    from mapsto.data.augment._columns import columns_of
    from mapsto.data.augment._words import words_of

    seeds = random.integers(2**63, size=len(operations) + 1).tolist()
    raw = torch.as_tensor(samples.inputs[indices])
    columns = columns_of(samples) if operations else None
    words = words_of(samples) if operations else None
    batch = changed(operations, raw, lambda place: generator_of(seeds[place]), columns=columns, words=words)
    if drop:
        is_image = batch.ndim == 4
        shape = (len(batch), 1, *batch.shape[2:]) if is_image else tuple(batch.shape)
        blank = batch.min() if is_image and batch.is_floating_point() else batch.new_zeros(())
        batch = torch.where(torch.rand(shape, generator=generator_of(seeds[-1])) < drop, blank, batch)
    return batch.numpy()


def changed_alike(
    samples: Samples, inputs: NDArray[Any], operations: Sequence[Augmentation], random: np.random.Generator
) -> NDArray[Any]:
    """Samples (M, ...) of a class or a task, all changed by the same draws: what is done to one is done to each.

    Parameters
    ----------
    samples
        What they are from.
    inputs, operations
        What is changed, by what, in order: nothing that mixes samples or goes by class.
    random
        Decides the draws.
    """
    import torch

    from mapsto.data.augment._apply import changed, generator_of
    from mapsto.data.augment._columns import columns_of
    from mapsto.data.augment._words import words_of

    seeds = random.integers(2**63, size=len(operations)).tolist()
    columns, words = columns_of(samples), words_of(samples)
    parts = [
        changed(operations, raw[None], lambda place: generator_of(seeds[place]), columns=columns, words=words)
        for raw in torch.as_tensor(inputs)
    ]
    return torch.cat(parts).numpy()


def require_images(samples: Samples, *, where: str, what: str) -> None:
    """Raises `DataError` where the samples are not square images."""
    shape = samples.inputs.shape[1:]
    if samples.preprocessing.kind != "image" or len(shape) != 3 or shape[1] != shape[2]:
        raise DataError(
            f"{what} is for square images, the samples have shape {shape}",
            where=where,
            hint="turn it off for this data",
        )
