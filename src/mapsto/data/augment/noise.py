"""Add random numbers to every value, so that a network does not lean on single ones.

``x' = x + σ n`` with n of the standard normal distribution (Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", 1995).
Bytes of images are rounded and kept within black and white. In rows σ is a share of each column's spread over the training rows; categories
stay as they are.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

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

    version: ClassVar[int] = 2
    on: ClassVar[tuple[SampleKind, ...]] = ("images", "rows")
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"std": 0.05}, {"std": 0.15})

    std: float = Field(default=0.05, ge=0, le=2)
    """σ: of images as bytes in units of the way from black to white, of other images in their own unit, of rows in units of each column's
    standard deviation."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        x = drawn.x
        kind = x.dtype if x.is_floating_point() else torch.float32
        drift = torch.randn(x.shape, generator=generator, dtype=kind).to(x.device)
        if x.ndim != 4:
            from mapsto.data.augment._columns import known_columns

            columns = known_columns(drawn)
            spread = torch.as_tensor(columns.spread).where(~torch.as_tensor(columns.categorical), 0.0).to(drift)
            drift = (drift.flatten(1) * spread).view_as(x)
            noisy = drift.mul_(self.std).add_(x)
            return dataclasses.replace(drawn, x=noisy if x.is_floating_point() else noisy.round_().to(x.dtype))
        if x.is_floating_point():
            return dataclasses.replace(drawn, x=drift.mul_(self.std).add_(x))
        noisy = drift.mul_(255 * self.std).add_(x).round_().clamp_(0, 255)
        return dataclasses.replace(drawn, x=noisy.to(x.dtype))
