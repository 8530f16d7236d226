"""Turn, scale, shear and shift images about their centre, each on its own, as a camera or a hand would.

``x'(p) = x(A p + t)`` with ``A = R(angle) · S(shear) / (1 + scale)``, sampled bilinearly; beyond its border an image goes on with its
outermost pixels (Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks", 2003).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment import Drawn
from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import EDGE, Code, Steps, fixed

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Affine"]


class Affine(PixelOperation):
    """Images (N, C, H, W), each under an affine map of its own; what is left at 0, as all is by default, is not done.

    >>> import torch
    >>> bar = torch.zeros(40, 1, 9, 9, dtype=torch.uint8)
    >>> bar[:, :, 4, 2:7] = 255
    >>> turned = Affine(degrees=90).draw(Drawn(x=bar, targets=torch.zeros(40)), torch.Generator().manual_seed(0)).x
    >>> upright = turned[:, 0, 2:7, 4].float().mean(1) > 200
    >>> 0 < int(upright.sum()) < 20
    True
    """

    degrees: float = Field(default=0.0, ge=0, le=180)
    """Turn by up to so many degrees each way."""
    scale: float = Field(default=0.0, ge=0, lt=1)
    """Scale by a factor within 1 ± this."""
    shear: float = Field(default=0.0, ge=0, le=1)
    """Shear by a factor within ± this."""
    translate: float = Field(default=0.0, ge=0, le=0.5)
    """Shift by up to this share of the side, each way."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = (
        {"degrees": 15},
        {"translate": 0.1},
        {"scale": 0.2},
        {"degrees": 10, "scale": 0.2, "translate": 0.1},
    )
    contract: ClassVar[dict[str, Any]] = {"degrees": 15, "scale": 0.1, "shear": 0.1, "translate": 0.1}

    version: ClassVar[int] = 2

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        signed = self._signed(shape[0], generator).double()
        a, b, c, d = (each.numpy() for each in self._map(signed))
        table = np.zeros((shape[0], 1, 8), np.int32)
        table[:, 0, 0], table[:, 0, 7] = Code.AFFINE, EDGE
        table[:, 0, 1:7] = fixed(np.stack([a, b, c, d, *(self.translate * signed[3:].numpy())], axis=1))
        return Steps(table=table)

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        if not drawn.x.is_floating_point():
            return super().draw(drawn, generator)
        return dataclasses.replace(drawn, x=self._sampled(drawn.x, self._signed(len(drawn.x), generator)))

    def _signed(self, count: int, generator: Generator) -> Tensor:
        """Five numbers an image from -1 to 1: for angle, scale, shear and two shifts."""
        import torch

        return torch.rand(5, count, generator=generator) * 2 - 1

    def _map(self, signed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A, row by row, from places in the result to places in the image, in pixels, of each image."""
        angle = signed[0] * math.radians(self.degrees)
        shrink = 1 / (1 + signed[1] * self.scale)
        cos, sin = angle.cos() * shrink, angle.sin() * shrink
        slant = signed[2] * self.shear
        return cos, slant * cos - sin, sin, slant * sin + cos

    def _sampled(self, x: Tensor, signed: Tensor) -> Tensor:
        """Numbers that are no bytes, without rounding them."""
        import torch
        from torch.nn.functional import affine_grid, grid_sample

        count, _, height, width = x.shape
        signed = signed.to(x.device)
        a, b, c, d = self._map(signed)
        # The grid counts each side as 2, so an angle on an image that is not square needs the ratio of its sides.
        ratio = height / width
        across = torch.stack([a, b * ratio, signed[3] * 2 * self.translate], dim=1)
        down = torch.stack([c / ratio, d, signed[4] * 2 * self.translate], dim=1)
        grid = affine_grid(
            torch.stack([across, down], dim=1).to(x.dtype), [count, 1, height, width], align_corners=False
        )
        return grid_sample(x, grid, padding_mode="border", align_corners=False)
