"""Draw an image's pixels towards its mean grey or away from it, each image by a factor of its own.

``x' = clip(m + f (x − m))`` with m the mean of the image's luma, f from 1 − strength to 1 + strength, alike likely (Howard, "Some
Improvements on Deep Convolutional Neural Network Based Image Classification", 2013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber, signed
from mapsto.data.augment._steps import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Contrast"]


class Contrast(OneNumber):
    """Images (N, C, H, W), each with less or more contrast; of other than three channels m is their mean.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> grey = torch.tensor([50, 100, 150], dtype=torch.uint8).expand(4, 1, 1, 3)
    >>> Contrast().draw(Drawn(x=grey, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[58, 100, 142], [45, 100, 155], [50, 100, 150], [34, 100, 166]]
    """

    kind: ClassVar[Kind] = "contrast"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 0.2}, {"strength": 0.5})

    strength: float = Field(default=0.4, ge=0, le=1)
    """Factors from 1 − this to 1 + this; 0.4 is usual for photos, 0.9 the largest of AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + signed(uniform, self.strength)
