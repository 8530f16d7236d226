"""Mirror images left to right at random, each on its own, since most things look as well the other way round.

``x'[c, i, j] = x[c, i, W − 1 − j]`` with a probability, and with another ``x'[c, i, j] = x[c, H − 1 − i, j]`` (Krizhevsky, Sutskever and
Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012). Not for characters and whatever has a right way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._pixels import PixelOperation
from mapsto.data.augment._steps import Code, Steps

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Flip"]


class Flip(PixelOperation):
    """Images (N, C, H, W), some of them mirrored.

    >>> import torch
    >>> from mapsto.data.augment import Drawn
    >>> rows = torch.tensor([[1, 2, 3]], dtype=torch.uint8).expand(6, 1, 1, 3)
    >>> Flip().draw(Drawn(x=rows, targets=torch.zeros(6)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[3, 2, 1], [1, 2, 3], [3, 2, 1], [3, 2, 1], [3, 2, 1], [1, 2, 3]]
    """

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    exact: ClassVar[bool] = True

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be mirrored left to right, 0 to 1."""
    vertical: float = Field(default=0.0, ge=0, le=1)
    """Of each image to be mirrored top to bottom, 0 to 1; for what is seen from above, as by a satellite or a microscope."""

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        import torch

        ways = 1 + (self.vertical > 0)
        uniform = torch.rand(ways, shape[0], generator=generator).numpy()
        table = np.zeros((shape[0], ways, 8), np.int32)
        table[uniform[0] < self.probability, 0, 0] = Code.FLIP
        if self.vertical:
            table[uniform[1] < self.vertical, 1, 0] = Code.FLIP_VERTICALLY
        return Steps(table=table)
