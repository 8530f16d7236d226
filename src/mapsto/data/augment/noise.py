"""Add random numbers to every value, so that a network does not lean on single ones.

``x' = x + σ n`` with n of the standard normal distribution (Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", 1995).
Bytes of images are rounded and kept within black and white.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Noise"]


class Noise(Augmentation):
    """Images or rows with Gaussian noise.

    >>> import torch
    >>> grey = torch.full((8, 1, 16, 16), 128, dtype=torch.uint8)
    >>> noisy = Noise(std=0.1).draw(Drawn(x=grey, targets=torch.zeros(8)), torch.Generator().manual_seed(0)).x
    >>> noisy.dtype, round(noisy.float().std().item() / 255, 2)
    (torch.uint8, 0.1)
    """

    on: ClassVar[tuple[SampleKind, ...]] = ("images", "rows")

    std: float = Field(default=0.05, ge=0, le=2)
    """σ: of images as bytes in units of the way from black to white, of rows and other numbers in their own unit."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        x = drawn.x
        kind = x.dtype if x.is_floating_point() else torch.float32
        drift = torch.randn(x.shape, generator=generator, dtype=kind).to(x.device)
        if x.is_floating_point():
            return dataclasses.replace(drawn, x=drift.mul_(self.std).add_(x))
        noisy = drift.mul_(255 * self.std).add_(x).round_().clamp_(0, 255)
        return dataclasses.replace(drawn, x=noisy.to(x.dtype))
