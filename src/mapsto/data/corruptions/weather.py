"""Weather: snow that falls, frost on the glass, fog, and too bright a sun. Images are float32 (N, C, H, W) from 0 to 1."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.data.corruptions.blur import along, zoomed
from mapsto.data.corruptions.textures import frost_textures, plasma

__all__ = ["brightness", "fog", "frost", "snow"]

Images = NDArray[Any]
_TEXTURES = 5
"""Pictures of frost of which pieces are cut, as many as ImageNet-C uses."""


def snow(
    x: Images,
    draws: np.random.Generator,
    unit: float,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    reach: float,
    blur: float,
    kept: float,
) -> Images:
    """Flakes of two sizes of layer, smeared as they fall, over an image that is whitened by the share that is not kept."""
    flakes = draws.normal(mean, std, (len(x), 1, *x.shape[2:])).astype(np.float32)
    flakes = zoomed(flakes, zoom * max(unit, 1.0))
    flakes[flakes < threshold] = 0
    flakes = along(np.clip(flakes, 0, 1), np.deg2rad(draws.uniform(-135, -45, len(x))), reach * unit, blur * unit)
    grey = x.mean(1, keepdims=True) if x.shape[1] == 1 else np.tensordot(x, _LUMA, (1, 0))[:, None]
    white = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    return white + flakes + flakes[:, :, ::-1, ::-1]


def frost(x: Images, draws: np.random.Generator, unit: float, kept: float, share: float) -> Images:
    """``kept · x + share · ice``, a piece of a picture of frost for each image."""
    size = max(x.shape[2:])
    whole = min(3 * size, size + 512)
    textures = _pictures(whole)
    ice = np.empty((len(x), 3, *x.shape[2:]), np.float32)
    for place in range(len(x)):
        which, top, left = int(draws.integers(_TEXTURES)), *draws.integers(0, whole - size + 1, 2)
        ice[place] = textures[which, :, top : top + x.shape[2], left : left + x.shape[3]]
    return kept * x + share * (ice if x.shape[1] == 3 else ice.mean(1, keepdims=True))


@cache
def _pictures(size: int) -> Images:
    """The same few pictures whatever the seed, as photographs are."""
    return frost_textures(_TEXTURES, size, np.random.default_rng(0))


def fog(x: Images, draws: np.random.Generator, unit: float, thickness: float, decay: float) -> Images:
    """A fractal cloud is added, and the whole darkened so that the brightest value stays what it was."""
    brightest = x.max((1, 2, 3), keepdims=True)
    clouds = plasma(len(x), max(x.shape[2:]), decay, draws)[:, None, : x.shape[2], : x.shape[3]]
    return (x + thickness * clouds) * brightest / (brightest + thickness)


def brightness(x: Images, draws: np.random.Generator, unit: float, more: float) -> Images:
    """The value of hue, saturation and value is raised; hue and saturation stay."""
    value = x.max(1, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    return np.where(value > 1e-6, x * raised / np.maximum(value, 1e-6), raised)


_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
