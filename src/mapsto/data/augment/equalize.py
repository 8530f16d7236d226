"""Spread the values of each channel of images so that all are alike often.

``x' = ⌊(n / 2 + #{pixels below x}) / n⌋`` with n a 255th of the pixels that are not the brightest, as Pillow has it (Cubuk et al.,
"AutoAugment: Learning Augmentation Strategies from Data", 2019). Images of fewer than 256 pixels stay.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber
from mapsto.data.augment._steps import Kind

__all__ = ["Equalize"]


class Equalize(OneNumber):
    """Images (N, C, H, W), some of them with a flat histogram.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> dark = torch.arange(32, dtype=torch.uint8).repeat(32).view(1, 1, 32, 32).expand(4, -1, -1, -1)
    >>> spread = Equalize().draw(Drawn(x=dark, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> spread.flatten(1).amax(1).tolist()
    [255, 31, 255, 255]
    """

    kind: ClassVar[Kind] = "equalize"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be changed, 0 to 1."""
