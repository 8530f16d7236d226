"""Shift images by a few pixels, each on its own: as if a border were put around and an image of the old size cut out.

``x'[c, i, j] = x[c, i + δ, j + ε]`` with whole δ and ε from −padding to padding, alike likely; beyond its border an image goes on mirrored
(He et al., "Deep Residual Learning for Image Recognition", 2016, with a border of zeros).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import Code, Steps

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Crop"]


class Crop(PixelOperation):
    """Images (N, C, H, W), each shifted by its own number of rows and columns.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> rows = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8).expand(5, 1, 1, 4)
    >>> Crop(padding=1).draw(Drawn(x=rows, targets=torch.zeros(5)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    """

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"padding": 2}, {"padding": 4}, {"padding": 12})

    exact: ClassVar[bool] = True

    padding: int = Field(default=4, ge=0, le=64)
    """Pixels of the image as it is read by which it is shifted at most, each way; 4 of 32 is usual for CIFAR (He et al., 2016)."""

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        import torch

        uniform = torch.rand(2, shape[0], generator=generator).numpy()
        table = np.zeros((shape[0], 1, 8), np.int32)
        table[:, 0, 0] = Code.SHIFT
        table[:, 0, 1:3] = (uniform * (2 * self.padding + 1)).astype(np.int32).T - self.padding
        return Steps(table=table)
