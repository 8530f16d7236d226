"""Slant images sideways: rows slide, each image by a slope of its own.

``x'[c, i, j] = x[c, i, j + s (i − (H − 1) / 2)]`` between two pixels by their weights, with s from −shear to shear, alike likely
(Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber, signed
from mapsto.data.augment._steps import Fill, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ShearX"]


class ShearX(OneNumber):
    """Images (N, C, H, W), each slanted about its middle row.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> ramp = torch.tensor([0, 100, 200], dtype=torch.uint8).view(1, 1, 1, 3).expand(4, 1, 3, 3)
    >>> slanted = ShearX(fill=0).draw(Drawn(x=ramp, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> slanted[:, 0, 0].tolist()
    [[6, 106, 188], [0, 96, 196], [0, 100, 199], [0, 88, 188]]
    """

    kind: ClassVar[Kind] = "shear_x"

    shear: float = Field(default=0.15, ge=0, le=1)
    """Pixels that a line slides by at most for each pixel from the middle; 0.3 is the largest of AutoAugment."""
    fill: Fill = 128
    """What is seen beyond the border: a grey level, 0 to 255, or `edge`, the outermost pixels; grey in AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return signed(uniform, self.shear)

    @property
    def beyond(self) -> Fill:
        return self.fill
