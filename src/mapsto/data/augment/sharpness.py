"""Smooth images or sharpen them, each by a factor of its own, as focus differs from photo to photo.

``x' = clip(s + f (x − s))`` with s the mean of the 3 × 3 pixels around, in which the middle counts five times; f from 1 − strength to
1 + strength, alike likely; the outermost pixels stay (Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber, signed
from mapsto.data.augment._steps import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Sharpness"]


class Sharpness(OneNumber):
    """Images (N, C, H, W), each smoother or sharper.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> dot = torch.zeros(4, 1, 3, 3, dtype=torch.uint8)
    >>> dot[:, :, 1, 1] = 130
    >>> Sharpness().draw(Drawn(x=dot, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x[:, 0, 1, 1].tolist()
    [118, 139, 129, 155]
    """

    kind: ClassVar[Kind] = "sharpness"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 0.9},)

    strength: float = Field(default=0.4, ge=0, le=1)
    """Factors from 1 − this to 1 + this; 0.9 is the largest of AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + signed(uniform, self.strength)
