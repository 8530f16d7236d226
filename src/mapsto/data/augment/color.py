"""Take colour away from images or add to it (saturation), each by a factor of its own.

``x' = clip(g + f (x − g))`` with g the pixel's luma (ITU-R 601), f from 1 − strength to 1 + strength, alike likely (Howard, "Some
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

__all__ = ["Color"]


class Color(OneNumber):
    """Images (N, 3, H, W) of red, green and blue, each greyer or more colourful; images of other channels stay as they are.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> red = torch.tensor([200, 100, 100], dtype=torch.uint8).view(3, 1, 1).expand(4, 3, 1, 1)
    >>> Color().draw(Drawn(x=red, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[189, 105, 105], [208, 97, 97], [199, 100, 100], [222, 90, 90]]
    """

    kind: ClassVar[Kind] = "color"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 0.4}, {"strength": 0.9})

    strength: float = Field(default=0.4, ge=0, le=1)
    """Factors from 1 − this to 1 + this; 0.4 is usual for photos, 0.9 the largest of AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + signed(uniform, self.strength)
