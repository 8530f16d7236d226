"""Cover a square of images, each at a place of its own, so that a network learns to go by more than one part.

A box of a share of both sides, with its centre anywhere in the image, becomes one grey; what sticks out is cut off (DeVries and Taylor,
"Improved Regularization of Convolutional Neural Networks with Cutout", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import Code, Steps, fixed, uniforms

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Cutout"]


class Cutout(PixelOperation):
    """Images (N, C, H, W), each with a part covered.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> white = torch.full((4, 1, 4, 4), 255, dtype=torch.uint8)
    >>> covered = Cutout(fill=0).draw(Drawn(x=white, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x == 0
    >>> covered.sum((1, 2, 3)).tolist()
    [4, 4, 4, 2]
    """

    probability: float = Field(default=1.0, ge=0, le=1)
    """Of each image to be covered, 0 to 1."""
    size: float = Field(default=0.5, ge=0, le=1)
    """Share of the sides that the box takes; 16 of 32 pixels for CIFAR-10 in the paper, 8 for CIFAR-100."""
    fill: int = Field(default=128, ge=0, le=255)
    """Grey level of what is covered, 0 to 255; about the mean, as in the paper."""

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"size": 0.25}, {"size": 0.5})

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        chosen, *centre = uniforms(3, shape[0], generator)
        top_left, bottom_right = ([fixed(each + side * self.size / 2) for each in centre] for side in (-1, 1))
        table = np.zeros((shape[0], 1, 8), np.int32)
        table[:, 0, 0] = np.where(chosen < self.probability, Code.BOX, Code.KEEP)
        table[:, 0, 1:5] = np.stack([*top_left, *bottom_right], axis=1)
        table[:, 0, 7] = self.fill
        return Steps(table=table)
