"""Stretch each channel of images so that its darkest pixel becomes black and its brightest white.

``x' = 255 (x − min) / (max − min)``, rounded down; a channel of one value stays (Cubuk et al., "AutoAugment: Learning Augmentation
Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber
from mapsto.data.augment._steps import Kind

__all__ = ["Autocontrast"]


class Autocontrast(OneNumber):
    """Images (N, C, H, W), some of them stretched.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> dull = torch.tensor([100, 110, 120], dtype=torch.uint8).expand(4, 1, 1, 3)
    >>> Autocontrast().draw(Drawn(x=dull, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[0, 127, 255], [100, 110, 120], [0, 127, 255], [0, 127, 255]]
    """

    kind: ClassVar[Kind] = "autocontrast"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be changed, 0 to 1."""
