"""Mirror images left to right at random, each on its own, since most things look as well the other way round.

``x'[c, i, j] = x[c, i, W − 1 − j]`` with a probability (Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional
Neural Networks", 2012). Not for characters and whatever else has a right way round.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Flip"]


class Flip(Augmentation):
    """Images (N, C, H, W), some of them mirrored.

    >>> import torch
    >>> rows = torch.tensor([[1, 2, 3]], dtype=torch.uint8).expand(6, 1, 1, 3)
    >>> Flip().draw(Drawn(x=rows, targets=torch.zeros(6)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[3, 2, 1], [1, 2, 3], [3, 2, 1], [3, 2, 1], [3, 2, 1], [1, 2, 3]]
    """

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    probability: float = Field(default=0.5, ge=0, le=1)
    """Of each image to be mirrored, 0 to 1."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        x = drawn.x
        mirrored = (torch.rand(len(x), generator=generator) < self.probability).to(x.device)
        flipped = x.clone()
        flipped[mirrored] = x[mirrored].flip(3)
        return dataclasses.replace(drawn, x=flipped)
