"""Make images brighter or darker, each by a factor of its own, since light differs from photo to photo.

``x' = clip(f x)`` with f from 1 − strength to 1 + strength, alike likely (Howard, "Some Improvements on Deep
Convolutional Neural Network Based Image Classification", 2013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber, signed
from mapsto.data.augment._steps import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Brightness"]


class Brightness(OneNumber):
    """Images (N, C, H, W), each brighter or darker; black stays black.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> grey = torch.tensor([0, 100, 200], dtype=torch.uint8).expand(4, 1, 1, 3)
    >>> Brightness().draw(Drawn(x=grey, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[0, 85, 169], [0, 111, 221], [0, 99, 198], [0, 132, 255]]
    """

    kind: ClassVar[Kind] = "brightness"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 0.2}, {"strength": 0.5})

    strength: float = Field(default=0.4, ge=0, le=1)
    """Factors from 1 − this to 1 + this; 0.4 is usual for photos, 0.9 the largest of AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + signed(uniform, self.strength)
