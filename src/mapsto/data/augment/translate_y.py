"""Shift images up or down, each by a share of its own, since things are not always in the middle.

``x'[c, i, j] = x[c, i − t, j]`` with t a share of the side from −translate to translate, alike likely, in whole pixels, so that
nothing is blurred (Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.data.augment._pixels import OneNumber, signed
from mapsto.data.augment._steps import Fill, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TranslateY"]


class TranslateY(OneNumber):
    """Images (N, C, H, W), each shifted up or down.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> line = torch.tensor([1, 2, 3, 4, 5], dtype=torch.uint8).view(1, 1, 5, 1).expand(4, -1, -1, -1)
    >>> shifted = TranslateY(translate=0.5, fill=0).draw(Drawn(x=line, targets=torch.zeros(4)), torch.Generator().manual_seed(0)).x
    >>> shifted.flatten(1).tolist()
    [[2, 3, 4, 5, 0], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [0, 0, 1, 2, 3]]
    """

    kind: ClassVar[Kind] = "translate_y"

    translate: float = Field(default=0.1, ge=0, le=1)
    """Share of the image's height by which it is shifted at most, each way; 0.45 is the largest of AutoAugment."""
    fill: Fill = 128
    """What is seen beyond the border: a grey level, 0 to 255, or `edge`, the outermost pixels; grey in AutoAugment."""

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return signed(uniform, self.translate)

    @property
    def beyond(self) -> Fill:
        return self.fill
