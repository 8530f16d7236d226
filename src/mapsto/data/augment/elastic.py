"""Bend images, each by a smooth field of its own, as a hand does that writes the same letter twice.

``x'(p) = x(p + u(p))`` with u a cubic B-spline over a grid of shifts, each from −strength to strength in both directions, alike
likely; beyond its border an image goes on with its outermost pixels (Simard, Steinkraus and Platt, "Best Practices for Convolutional
Neural Networks", 2003, with smoothed noise; Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
with a grid).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation, signed
from mapsto.data.augment._steps import Code, Steps, uniforms

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator

__all__ = ["Elastic"]

_WHOLE = 1024
"""The sum of the weights of a place's four neighbours of the grid, along one axis."""


class Elastic(PixelOperation):
    """Images (N, C, H, W), each bent.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> line = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    >>> line[:, :, :, 8] = 255
    >>> bent = Elastic().draw(Drawn(x=line, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> bent[0, 0, ::3].argmax(1).tolist()
    [7, 8, 8, 8, 8, 8]
    """

    strength: float = Field(default=0.1, ge=0, le=0.5)
    """Largest shift of a point of the grid, as a share of the side; what is seen moves by about half of it."""
    cells: int = Field(default=4, ge=1, le=32)
    """Cells of the grid along each side: the more, the finer the bends; 3 in Ronneberger et al."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 0.1},)

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        count, _, height, width = shape
        points = self.cells + 3
        drawn = signed(
            uniforms(2 * points * points, count, generator).T.reshape(count, 2, points, points), self.strength
        )
        # Numbers of whole numbers stay exact in float64, in whatever order they are summed.
        shifts = np.rint(drawn * 256 * np.array([height, width], float)[:, None, None])
        field = _weights(height, self.cells) @ shifts @ _weights(width, self.cells).T
        pool = ((field.astype(np.int64) + _WHOLE * _WHOLE // 2) // (_WHOLE * _WHOLE)).astype(np.int32)
        table = np.zeros((count, 1, 8), np.int32)
        table[:, 0, 0] = Code.WARP
        table[:, 0, 1] = np.arange(count) * 2 * height * width
        return Steps(table=table, pool=pool)


def _weights(side: int, cells: int) -> NDArray[np.float64]:
    """Whole weights of the grid's points for each pixel along a side, (side, cells + 3)."""
    place = (np.arange(side) + 0.5) / side * cells
    cell = np.minimum(place.astype(np.intp), cells - 1)
    t = place - cell
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    whole = np.rint(basis * _WHOLE)
    whole[:, 1] += _WHOLE - whole.sum(1)
    weights = np.zeros((side, cells + 3))
    for each in range(4):
        weights[np.arange(side), cell + each] = whole[:, each]
    return weights
