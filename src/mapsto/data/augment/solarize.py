"""Turn the brightest parts of images into their negative, as over-exposed film does.

``x' = 255 − x`` where ``x ≥ t``, else x, with t from the threshold to 256, alike likely (Cubuk et al., "AutoAugment: Learning Augmentation
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

__all__ = ["Solarize"]


class Solarize(OneNumber):
    """Images (N, C, H, W), each with a threshold of its own.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> grey = torch.tensor([100, 150, 200, 250], dtype=torch.uint8).expand(4, 1, 1, 4)
    >>> Solarize(probability=1).draw(Drawn(x=grey, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[100, 150, 55, 5], [100, 150, 200, 5], [100, 150, 55, 5], [100, 150, 200, 5]]
    """

    kind: ClassVar[Kind] = "solarize"
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be changed, 0 to 1."""
    threshold: float = Field(default=128.0, ge=0, le=256)
    """Lowest value that may be turned, 0 to 256, where nothing is; 0 in AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return (self.threshold + uniform * (256 - self.threshold)).round()
