"""Cover squares of images at even distances, so that something of every part is covered and something is left.

Of each cell of a grid of side d, moved by a part of a cell, a square of side ``(1 − r) d`` becomes one grey: ``2r − r²`` of the image
stays (Chen et al., "GridMask Data Augmentation", 2020; without the turning of the grid).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation, in_order
from mapsto.data.augment._steps import Code, Steps, fixed, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["GridMask"]

_Share = Annotated[float, Field(gt=0, le=1)]


class GridMask(PixelOperation):
    """Images (N, C, H, W), some of them behind a grid.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> white = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)
    >>> mask = GridMask(probability=1, cell=(0.5, 0.5), keep=0.5, fill=0)
    >>> masked = mask.draw(Drawn(x=white, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> (masked > 0).float().mean((1, 2, 3)).tolist()
    [0.75, 0.75, 0.75, 0.75]
    """

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be covered, 0 to 1; it rises to 0.8 in the paper."""
    cell: tuple[_Share, _Share] = (0.43, 1.0)
    """Smallest and largest d, as shares of the shorter side; 96 and 224 of 224 pixels in the paper."""
    keep: float = Field(default=0.6, ge=0, le=1)
    """r: the part of a cell's side that stays; 0.6 for ImageNet in the paper, 0.4 for CIFAR-10. At 1 nothing is covered."""
    fill: int = Field(default=128, ge=0, le=255)
    """Grey level of what is covered, 0 to 255; about the mean, as in the paper."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def __post_init__(self) -> None:
        in_order(self, "cell")

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        chosen, uniform, down, across = uniforms(4, shape[0], generator)
        table = np.zeros((shape[0], 1, 8), np.int32)
        table[:, 0, 0] = np.where(chosen < self.probability, Code.GRID, Code.KEEP)
        table[:, 0, 1] = fixed(self.cell[0] + uniform * (self.cell[1] - self.cell[0]))
        table[:, 0, 2] = fixed(np.asarray(self.keep))
        table[:, 0, 3], table[:, 0, 4] = fixed(down), fixed(across)
        table[:, 0, 7] = self.fill
        return Steps(table=table)
