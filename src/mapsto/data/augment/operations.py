"""Augmentation of training batches: drawn for each image, from a generator of the caller's.

Beyond the border an image goes on with its own pixels (mirrored or repeated), so that no value is made up and the
functions work on normalised and on raw batches alike.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from mapsto.data.augment.field import Augmentation

__all__ = ["affine", "apply", "flip", "noise", "padded_crop"]


def apply(batch: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """An augmented copy of a batch; the batch itself where nothing is to be done.

    Parameters
    ----------
    batch
        float, shape (N, C, H, W).
    augmentation
        What to do. In order: affine, crop, flip, noise.
    generator
        Decides every draw.

    Returns
    -------
    Tensor
        Of the same shape, type and device.

    >>> still = torch.zeros(2, 1, 4, 4)
    >>> apply(still, Augmentation(noise=0.1), torch.Generator().manual_seed(0)).std().item() > 0.05
    True
    """
    a = augmentation
    if a.is_affine:
        batch = affine(batch, generator, degrees=a.degrees, scale=a.scale, shear=a.shear, translate=a.translate)
    if a.crop_padding:
        batch = padded_crop(batch, generator, pad=a.crop_padding)
    if a.flip:
        batch = flip(batch, generator)
    if a.noise:
        batch = noise(batch, generator, std=a.noise)
    return batch


def flip(batch: Tensor, generator: Generator) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with probability one half."""
    mirrored = torch.rand(len(batch), generator=generator, device=generator.device).to(batch.device) < 0.5
    return torch.where(mirrored[:, None, None, None], batch.flip(3), batch)


def padded_crop(batch: Tensor, generator: Generator, *, pad: int) -> Tensor:
    """Shift each image (N, C, H, W) by a whole number of pixels, -pad to pad each way, the border mirrored."""
    count, _, height, width = batch.shape
    shift = torch.randint(-pad, pad + 1, (2, count, 1), generator=generator, device=generator.device).to(batch.device)
    rows = _mirrored(torch.arange(height, device=batch.device) + shift[0], height)
    columns = _mirrored(torch.arange(width, device=batch.device) + shift[1], width)
    places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    return batch.flatten(2).gather(2, places.expand(-1, batch.shape[1], -1)).view_as(batch)


def affine(
    batch: Tensor,
    generator: Generator,
    *,
    degrees: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    translate: float = 0.0,
) -> Tensor:
    """Turn, scale, shear and shift each image (N, C, H, W) about its centre, sampled bilinearly, the border repeated.

    Parameters
    ----------
    batch
        float, shape (N, C, H, W).
    generator
        Decides every draw.
    degrees
        Largest angle, each way.
    scale
        Largest change of size: factors are within 1 ± scale.
    shear
        Largest shear, each way.
    translate
        Largest shift as a share of the side, each way.
    """
    count, _, height, width = batch.shape
    signed = torch.rand(5, count, generator=generator, device=generator.device).to(batch.device) * 2 - 1
    angle = signed[0] * math.radians(degrees)
    shrink = 1 / (1 + signed[1] * scale)
    cos, sin = angle.cos() * shrink, angle.sin() * shrink
    slant = signed[2] * shear
    # The grid counts each side as 2, so an angle on an image that is not square needs the ratio of its sides.
    ratio = height / width
    x = torch.stack([cos, (slant * cos - sin) * ratio, signed[3] * 2 * translate], dim=1)
    y = torch.stack([sin / ratio, slant * sin + cos, signed[4] * 2 * translate], dim=1)
    grid = torch.nn.functional.affine_grid(
        torch.stack([x, y], dim=1).to(batch.dtype), [count, 1, height, width], align_corners=False
    )
    return torch.nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def noise(batch: Tensor, generator: Generator, *, std: float) -> Tensor:
    """Add Gaussian noise of standard deviation `std` to each value."""
    drawn = torch.randn(batch.shape, generator=generator, device=generator.device, dtype=batch.dtype)
    return batch + drawn.to(batch.device) * std


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places outside 0 to size - 1 reflected at the outermost pixels, as often as it takes."""
    if size == 1:
        return torch.zeros_like(places)
    folded = places.remainder(2 * (size - 1))
    return torch.minimum(folded, 2 * (size - 1) - folded)
