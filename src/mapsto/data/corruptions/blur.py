"""Blur of optics and of motion: out of focus, frosted glass, a camera that moves or zooms. Images are float32 (N, C, H, W), 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["along", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "zoomed"]

Images = NDArray[Any]


def defocus_blur(x: Images, draws: np.random.Generator, unit: float, radius: float, softness: float) -> Images:
    """Each point becomes a disk of `radius` pixels, its edge softened by a Gaussian of that standard deviation."""
    from scipy import ndimage

    radius, softness = radius * unit, softness * max(unit, 1.0)
    reach = int(np.ceil(radius + 2 * softness)) + 1
    across = np.arange(-reach, reach + 1)
    fine = np.linspace(-0.5, 0.5, 9)  # a disk of half a pixel still has a size
    distance = np.hypot(across[:, None, None, None] + fine[None, None, :, None], across[None, :, None, None] + fine)
    disk = ndimage.gaussian_filter((distance <= radius).mean((2, 3)), softness)
    return convolved(x, (disk / disk.sum()).astype(np.float32))


def convolved(x: Images, kernel: NDArray[np.float32]) -> Images:
    """Every map convolved with one kernel (K, K), mirrored at its borders."""
    from scipy import fft

    reach = len(kernel) // 2
    padded = np.pad(
        x, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="reflect" if reach < min(x.shape[2:]) else "symmetric"
    )
    size = [fft.next_fast_len(length, real=True) for length in padded.shape[2:]]
    transform: Any = fft  # whose types are those of what it may hand over to
    found = transform.irfft2(transform.rfft2(padded, size) * transform.rfft2(kernel, size), size)
    return found[:, :, 2 * reach : 2 * reach + x.shape[2], 2 * reach : 2 * reach + x.shape[3]].astype(np.float32)


def glass_blur(x: Images, draws: np.random.Generator, unit: float, std: float, reach: float, rounds: float) -> Images:
    """Each pixel takes the value of a neighbour less than `reach` away, round after round, between two Gaussian blurs.

    ImageNet-C means to exchange both, but its code copies one over the other; so is it done here.
    """
    from scipy import ndimage

    std, reach = std * max(unit, 1.0), max(1, round(reach * unit))
    x = ndimage.gaussian_filter(x, (0, 0, std, std)).astype(np.float32)
    height, width = x.shape[2:]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    every = np.arange(len(x))[:, None, None]
    for _ in range(int(rounds)):
        down, right = draws.integers(-reach, reach, (2, len(x), height, width))
        row, column = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        x = x[every, :, row, column].transpose(0, 3, 1, 2)
    return ndimage.gaussian_filter(x, (0, 0, std, std)).astype(np.float32)


def motion_blur(x: Images, draws: np.random.Generator, unit: float, reach: float, std: float) -> Images:
    """Each image is smeared one way along a line, at an angle of its own within 45° of the horizontal."""
    angles = np.deg2rad(draws.uniform(-45, 45, len(x)))
    return along(x, angles, reach * unit, std * unit)


def along(x: Images, angles: NDArray[np.float64], reach: float, std: float) -> Images:
    """The mean of `2 · reach + 1` copies, each one pixel further along the angle (N,), weighted by half of a Gaussian."""
    count = 2 * max(1, round(reach)) + 1
    weights = np.exp(-0.5 * (np.arange(count) / max(std, 0.3)) ** 2)
    weights /= weights.sum()
    rows, columns = (np.arange(size) for size in x.shape[2:])
    every = np.arange(len(x))[:, None, None]
    blurred = np.zeros_like(x)
    for step, weight in enumerate(weights):
        if weight < 1e-3:
            break
        down, right = (np.rint(step * part(angles)).astype(int) for part in (np.sin, np.cos))
        row = np.clip(rows[None] + down[:, None], 0, len(rows) - 1)[:, :, None]
        column = np.clip(columns[None] + right[:, None], 0, len(columns) - 1)[:, None, :]
        blurred += np.float32(weight) * x[every, :, row, column].transpose(0, 3, 1, 2)
    return blurred


def zoom_blur(x: Images, draws: np.random.Generator, unit: float, furthest: float, step: float) -> Images:
    """The mean of the image and of itself enlarged by ``1 + step, 1 + 2 step, …`` up to `furthest`."""
    factors = np.arange(1.0, furthest - step / 2, step)
    total = x.copy()
    for factor in factors:
        total += zoomed(x, float(factor))
    return total / np.float32(len(factors) + 1)


def zoomed(x: Images, factor: float) -> Images:
    """Enlarged around its middle by a factor of at least 1, bilinearly, and cut to its size."""
    found = x
    for axis in (2, 3):
        size = x.shape[axis]
        place = (np.arange(size) - (size - 1) / 2) / factor + (size - 1) / 2
        low = np.clip(np.floor(place).astype(int), 0, size - 1)
        high, share = np.minimum(low + 1, size - 1), (place - low).astype(np.float32)
        shape = [1] * 4
        shape[axis] = -1
        share = share.reshape(shape)
        found = np.take(found, low, axis) * (1 - share) + np.take(found, high, axis) * share
    return found
