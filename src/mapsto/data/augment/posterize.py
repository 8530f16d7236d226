"""Leave fewer levels of each colour, as in a poster.

``x' = x − x mod 2^(8 − b)`` with b bits, a whole number from bits to 8, alike likely (Cubuk et al., "AutoAugment: Learning Augmentation
Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber
from mapsto.data.augment._steps import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Posterize"]


class Posterize(OneNumber):
    """Images (N, C, H, W), each with a number of bits of its own.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> grey = torch.tensor([15, 100, 255], dtype=torch.uint8).expand(4, 1, 1, 3)
    >>> Posterize(probability=1).draw(Drawn(x=grey, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[8, 96, 248], [14, 100, 254], [12, 100, 252], [15, 100, 255]]
    """

    kind: ClassVar[Kind] = "posterize"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be changed, 0 to 1."""
    bits: int = Field(default=4, ge=1, le=8)
    """Fewest bits that are left, 1 to 8, where nothing changes; 4 in AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.bits + (uniform * (9 - self.bits)) // 1
