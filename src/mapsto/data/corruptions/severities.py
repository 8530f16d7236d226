"""The fifteen corruptions by name, and what each of the five severities is: of CIFAR-10-C for small images, of ImageNet-C for others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mapsto.data.corruptions import blur, digital, noise, weather
from mapsto.errors import DataError

__all__ = ["CORRUPTIONS", "Corruption", "corrupted"]

Corruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
_SMALL = 64
"""Of at most so many pixels images are corrupted as those of CIFAR-10-C."""
_CHUNK = 250
"""Images that share the draws of one generator."""

Five = tuple[tuple[float, ...], ...]


class _Kind(NamedTuple):
    change: Callable[..., NDArray[np.float32]]
    small: Five
    """Parameters of severities 1 to 5 at 32 pixels."""
    large: Five
    """The same at 224 pixels."""


def _each(*values: float) -> Five:
    return tuple((value,) for value in values)


_KINDS: dict[str, _Kind] = {
    "gaussian_noise": _Kind(
        noise.gaussian_noise, _each(0.04, 0.06, 0.08, 0.09, 0.10), _each(0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot_noise": _Kind(noise.shot_noise, _each(500, 250, 100, 75, 50), _each(60, 25, 12, 5, 3)),
    "impulse_noise": _Kind(
        noise.impulse_noise, _each(0.01, 0.02, 0.03, 0.05, 0.07), _each(0.03, 0.06, 0.09, 0.17, 0.27)
    ),
    "defocus_blur": _Kind(
        blur.defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": _Kind(
        blur.glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": _Kind(
        blur.motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": _Kind(
        blur.zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.33, 0.03)),
    ),
    "snow": _Kind(
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": _Kind(
        weather.frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": _Kind(
        weather.fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": _Kind(weather.brightness, _each(0.05, 0.1, 0.15, 0.2, 0.3), _each(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": _Kind(digital.contrast, _each(0.75, 0.5, 0.4, 0.3, 0.15), _each(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": _Kind(
        digital.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": _Kind(digital.pixelate, _each(0.95, 0.9, 0.85, 0.75, 0.65), _each(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": _Kind(digital.jpeg_compression, _each(80, 65, 58, 50, 40), _each(25, 18, 15, 10, 7)),
}


def corrupted(images: NDArray[Any], name: str, severity: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Images of bytes (N, C, H, W), C 1 or 3, corrupted; the same images in the same order and the same seed give the same.

    Raises `DataError` for anything but bytes.

    >>> grey = np.full((2, 3, 32, 32), 128, np.uint8)
    >>> [round(float(corrupted(grey, "gaussian_noise", severity).std()) / 255, 2) for severity in (1, 5)]
    [0.04, 0.1]
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{images.dtype} of shape {images.shape} is no batch of images of bytes (N, 1 or 3, H, W)",
            where=name,
            hint="give uint8 images; rows and texts have no such corruptions",
        )
    kind, size = _KINDS[name], max(images.shape[2:])
    small = size <= _SMALL
    chosen = (kind.small if small else kind.large)[severity - 1]
    unit = size / (32 if small else 224)
    found = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        key = hashlib.sha256(f"{seed} {name} {severity} {start}".encode()).digest()
        draws = np.random.default_rng(int.from_bytes(key[:8], "big"))
        part = images[start : start + _CHUNK].astype(np.float32) / 255
        changed = kind.change(part, draws, unit, *chosen)
        found[start : start + _CHUNK] = np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
    return found
