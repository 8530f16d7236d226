"""Random fields that weather is drawn with: clouds of fog, and ferns of frost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["frost_textures", "plasma"]


_FINE = 384
"""Pixels that a picture of frost is grown on at the least."""


def plasma(count: int, size: int, decay: float, draws: np.random.Generator) -> NDArray[np.float32]:
    """Fractals (count, size, size) from 0 to 1 by midpoint displacement, which each halving of the grid divides by `decay` squared.

    Fournier, Fussell and Carpenter, "Computer Rendering of Stochastic Models", 1982 (the diamond-square algorithm).

    >>> cloud = plasma(2, 20, 2.0, np.random.default_rng(0))
    >>> cloud.shape, float(cloud.min()), float(cloud.max())
    ((2, 20, 20), 0.0, 1.0)
    """
    whole = 1 << max(1, int(np.ceil(np.log2(max(size, 2)))))
    field = np.zeros((count, whole, whole), np.float64)
    step, wide = whole, 100.0

    def drawn(mean: NDArray[np.float64]) -> NDArray[np.float64]:
        return mean / 4 + wide * draws.uniform(-wide, wide, mean.shape)  # wide², as ImageNet-C has it

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        rows = corners + np.roll(corners, -1, 1)
        field[:, half::step, half::step] = drawn(rows + np.roll(rows, -1, 2))
        middles, corners = field[:, half::step, half::step], field[:, ::step, ::step]
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        field[:, ::step, half::step] = drawn(beside)
        below = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        field[:, half::step, ::step] = drawn(below)
        step, wide = half, wide / decay
    field = field[:, :size, :size]
    field -= field.min((1, 2), keepdims=True)
    return (field / np.maximum(field.max((1, 2), keepdims=True), 1e-12)).astype(np.float32)


def frost_textures(count: int, size: int, draws: np.random.Generator) -> NDArray[np.float32]:
    """Pictures of frost on glass (count, 3, size, size) from 0 to 1: ferns of ice that grow from seeds, over an uneven haze.

    A fern is a needle with branches at 60°, and these again, as ice crystals grow (Nakaya, "Snow Crystals: Natural and Artificial", 1954).
    """
    from scipy import ndimage

    factor = -(-_FINE // size)  # grown finer than it is shown, as a lens would show it
    whole = size * factor
    pictures = np.zeros((count, 3, size, size), np.float32)
    haze = plasma(count, size, 1.5, draws)
    tint = np.array([0.8, 0.92, 1.0], np.float32)[:, None, None]
    for picture, fog in zip(pictures, haze, strict=True):
        ice = np.zeros((whole, whole), np.float64)
        for _ in range(12):
            start, angle = draws.uniform(0, whole, 2), draws.uniform(0, 2 * np.pi)
            _fern(ice, start, float(angle), whole * float(draws.uniform(0.25, 0.6)), 1.0, 3, draws)
        glow = ndimage.gaussian_filter(ice, whole / 80)
        sharp = ndimage.gaussian_filter(ice, whole / 600)
        light = (0.55 * sharp + 0.6 * glow).reshape(size, factor, size, factor).mean((1, 3))
        light = 0.12 + 0.33 * fog + light + 0.04 * draws.standard_normal((size, size))
        picture[:] = np.clip(light * (tint + (1 - tint) * np.clip(light, 0, 1)), 0, 1)
    return pictures


def _fern(
    ice: NDArray[np.float64],
    start: Any,
    angle: float,
    length: float,
    thick: float,
    depth: int,
    draws: np.random.Generator,
) -> None:
    """Add a needle, and at both its sides branches that shorten towards its tip."""
    size = len(ice)
    points = max(2, int(length * 1.5))
    way = np.linspace(0, 1, points)
    bend = angle + float(draws.normal(0, 0.25)) * way
    rows = start[0] + np.cumsum(np.sin(bend)) * length / points
    columns = start[1] + np.cumsum(np.cos(bend)) * length / points
    there = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    light = thick * (1 - 0.6 * way)
    np.maximum.at(ice, (rows[there].astype(int), columns[there].astype(int)), light[there])
    if depth <= 1:
        return
    for place in range(2, points, max(2, points // 14)):
        share = place / points
        for side in (-1, 1):
            turned = float(bend[place]) + side * (np.pi / 3 + float(draws.normal(0, 0.06)))
            reach = 0.42 * length * (1 - share) * float(draws.uniform(0.6, 1.1))
            if reach > 2:
                _fern(ice, (rows[place], columns[place]), turned, reach, 0.75 * thick, depth - 1, draws)
