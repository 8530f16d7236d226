"""Augmented copies of raw samples, as a set of tasks makes them: bytes stay bytes, rows stay rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.augment.field import Augmentation
from mapsto.errors import DataError
from mapsto.kinds import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["require_images", "variants"]


def variants(
    samples: Samples, indices: NDArray[np.int64], augmentation: Augmentation, drop: float, random: np.random.Generator
) -> NDArray[Any]:
    """An augmented copy of each chosen sample.

    Parameters
    ----------
    samples, indices
        What to copy, shape (M,).
    augmentation
        What is done to images; of rows only its noise.
    drop
        Share of the pixels of an image, or of the numbers of a row, that become what is blank: the darkest value, or 0.
    random
        Decides every draw.

    Returns
    -------
    ndarray
        Shape (M, ...), of the samples' type.
    """
    import torch

    from mapsto.data.augment import operations

    chosen = samples.inputs[indices]
    generator = torch.Generator().manual_seed(int(random.integers(2**63)))
    is_image = samples.preprocessing.kind == "image"
    if is_image:
        batch = torch.as_tensor(chosen).float()
        low, high = (0.0, 255.0) if chosen.dtype == np.uint8 else (float(batch.min()), float(batch.max()))
        # Noise is given in units of the normalised input.
        unit = (255.0 if chosen.dtype == np.uint8 else 1.0) * float(np.mean(samples.preprocessing.std))
        batch = (operations.apply(batch / unit, augmentation, generator) * unit).clamp(low, high)
    else:
        batch = torch.as_tensor(chosen, dtype=torch.float32)
        low = 0.0
        if augmentation.noise:
            batch = operations.noise(batch, generator, std=augmentation.noise)
    if drop:
        shape = (len(batch), 1, *batch.shape[2:]) if is_image else tuple(batch.shape)
        batch = torch.where(torch.rand(shape, generator=generator) < drop, torch.tensor(low), batch)
    return (batch.round() if chosen.dtype == np.uint8 else batch).numpy().astype(chosen.dtype)


def require_images(samples: Samples, *, where: str, what: str) -> None:
    """Raises `DataError` where the samples are not square images."""
    shape = samples.inputs.shape[1:]
    if samples.preprocessing.kind != "image" or len(shape) != 3 or shape[1] != shape[2]:
        raise DataError(
            f"{what} is for square images, the samples have shape {shape}",
            where=where,
            hint="turn it off for this data",
        )
