"""Noise of cameras: Gaussian of poor light, shot of few photons, impulse of broken bits. Images are float32 (N, C, H, W) from 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise"]

Images = NDArray[Any]


def gaussian_noise(x: Images, draws: np.random.Generator, unit: float, std: float) -> Images:
    """``x + σ n`` with n of the standard normal distribution."""
    return x + std * draws.standard_normal(x.shape, np.float32)


def shot_noise(x: Images, draws: np.random.Generator, unit: float, photons: float) -> Images:
    """``Poisson(p x) / p``: p photons of a white pixel."""
    counts: NDArray[Any] = draws.poisson(np.clip(x, 0, 1) * photons)
    return (counts / photons).astype(np.float32)


def impulse_noise(x: Images, draws: np.random.Generator, unit: float, share: float) -> Images:
    """Salt and pepper: a share of the values becomes 0 or 1, either as often."""
    drawn = draws.random(x.shape, np.float32)
    return np.where(drawn < share, (drawn < share / 2).astype(np.float32), x)
