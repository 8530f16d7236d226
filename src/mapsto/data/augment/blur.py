"""Blur images, each by a width of its own, so that a network does not go by the finest texture alone.

``x' = x * g`` with the kernel ``g(i, j) ∝ exp(−(i² + j²) / 2σ²)``, σ from the smallest to the largest, alike likely (Chen et al., "A Simple
Framework for Contrastive Learning of Visual Representations", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation, in_order
from mapsto.data.augment._steps import Code, Steps, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Blur"]

_WHOLE = 16384
"""The sum of a kernel's weights along one axis."""
_Sigma = Annotated[float, Field(ge=0, le=32)]


class Blur(PixelOperation):
    """Images (N, C, H, W), some of them blurred; beyond its border an image goes on mirrored.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> dot = torch.zeros(4, 1, 5, 5, dtype=torch.uint8)
    >>> dot[:, :, 2, 2] = 255
    >>> blurred = Blur(sigma=(0, 1)).draw(Drawn(x=dot, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> blurred[:, 0, 2].tolist()
    [[0, 1, 250, 1, 0], [0, 0, 255, 0, 0], [0, 20, 163, 20, 0], [8, 27, 51, 27, 8]]
    """

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be blurred, 0 to 1; a half in the paper."""
    sigma: tuple[_Sigma, _Sigma] = (0.1, 2.0)
    """Smallest and largest σ, in pixels of the image as it is read; 0.1 and 2 for 224 pixels in the paper, less for small images."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 1.0, "sigma": (0.1, 1.0)},)

    def __post_init__(self) -> None:
        in_order(self, "sigma")

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        chosen, uniform = uniforms(2, shape[0], generator)
        sigma = self.sigma[0] + uniform * (self.sigma[1] - self.sigma[0])
        sigma[chosen >= self.probability] = 0
        radius = np.ceil(3 * sigma).astype(np.int32)
        away = np.arange(radius.max(initial=0) + 1)
        kernel = np.exp(-0.5 * (away / np.maximum(sigma, 1e-3)[:, None]) ** 2) * (away <= radius[:, None])
        weights = np.rint(_WHOLE * kernel / (2 * kernel.sum(1) - 1)[:, None]).astype(np.int32)
        weights[:, 0] = _WHOLE - 2 * weights[:, 1:].sum(1)
        table = np.zeros((shape[0], 1, 8), np.int32)
        table[:, 0, 0] = np.where(radius > 0, Code.BLUR, Code.KEEP)
        table[:, 0, 1] = np.arange(shape[0]) * len(away)
        table[:, 0, 2] = radius
        return Steps(table=table, pool=weights)
