"""Turn images about their centre, each by an angle of its own, since cameras are not always held level.

``x'(p) = x(R p)`` with R the rotation by an angle from −degrees to degrees, alike likely, between pixels by their weights (Cubuk et al.,
"AutoAugment: Learning Augmentation Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber, signed
from mapsto.data.augment._steps import Fill, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Rotate"]


class Rotate(OneNumber):
    """Images (N, C, H, W), each turned.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> bar = torch.zeros(4, 1, 9, 9, dtype=torch.uint8)
    >>> bar[:, :, 4] = 200
    >>> turned = Rotate(degrees=90, fill=0).draw(Drawn(x=bar, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> turned[0, 0].argmax(1).tolist()
    [0, 1, 1, 3, 4, 5, 7, 7, 0]
    """

    kind: ClassVar[Kind] = "rotate"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"degrees": 10}, {"degrees": 30})

    degrees: float = Field(default=15.0, ge=0, le=180)
    """Turn by up to so many degrees each way; 30 is the largest of AutoAugment."""
    fill: Fill = 128
    """What is seen beyond the border: a grey level, 0 to 255, or `edge`, the outermost pixels; grey in AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return signed(uniform, self.degrees)

    @property
    def beyond(self) -> Fill:
        return self.fill
