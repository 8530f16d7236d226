"""Show images as their negative: black becomes white.

``x' = 255 − x`` (Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber
from mapsto.data.augment._steps import Kind

__all__ = ["Invert"]


class Invert(OneNumber):
    """Images (N, C, H, W), some of them inverted.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> grey = torch.tensor([0, 100, 255], dtype=torch.uint8).expand(4, 1, 1, 3)
    >>> Invert().draw(Drawn(x=grey, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[255, 155, 0], [0, 100, 255], [255, 155, 0], [255, 155, 0]]
    """

    kind: ClassVar[Kind] = "invert"

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be changed, 0 to 1."""
