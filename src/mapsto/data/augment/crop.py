"""Shift images by a few pixels, each on its own: as if a border were put around and an image of the old size cut out.

``x'[c, i, j] = x[c, i + δ, j + ε]`` with whole δ and ε from −padding to padding, alike likely; beyond its border an image goes on mirrored
(He et al., "Deep Residual Learning for Image Recognition", 2016, with a border of zeros).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._steps import Code, Steps

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Crop"]


class Crop(Augmentation):
    """Images (N, C, H, W), each shifted by its own number of rows and columns.

    >>> import torch
    >>> rows = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8).expand(5, 1, 1, 4)
    >>> Crop(padding=1).draw(Drawn(x=rows, targets=torch.zeros(5)), torch.Generator().manual_seed(0)).x.flatten(1).tolist()
    [[1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    """

    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"padding": 2}, {"padding": 4}, {"padding": 12})

    padding: int = Field(default=4, ge=0, le=64)
    """Pixels of the image as it is read by which it is shifted at most, each way; 4 of 32 is usual for CIFAR (He et al., 2016)."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._pixels import by_native_code

        x = drawn.x
        count, channels, height, width = x.shape
        uniform = torch.rand(2, count, 1, generator=generator).to(x.device)
        shift = (uniform * (2 * self.padding + 1)).long() - self.padding
        table = np.zeros((count, 1, 8), np.int32)
        table[:, 0, 0] = Code.SHIFT
        table[:, 0, 1:3] = shift[..., 0].T.numpy(force=True)
        native = by_native_code(Steps(table=table), x)
        if native is not None:
            return dataclasses.replace(drawn, x=native)
        rows = _mirrored(torch.arange(height, device=x.device) + shift[0], height)
        columns = _mirrored(torch.arange(width, device=x.device) + shift[1], width)
        places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
        cut = x.flatten(2).gather(2, places.expand(-1, channels, -1)).view_as(x)
        return dataclasses.replace(drawn, x=cut)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places outside 0 to size - 1 reflected at the outermost pixels, as often as it takes."""
    import torch

    if size == 1:
        return torch.zeros_like(places)
    folded = places.remainder(2 * (size - 1))
    return torch.minimum(folded, 2 * (size - 1) - folded)
