"""Flip and crop as they were by PyTorch alone, before native code, which still give the same images."""

from __future__ import annotations

import dataclasses

import torch
from pydantic import Field
from torch import Generator, Tensor

from mapsto.data.augment import Augmentation, Drawn


class Flip(Augmentation):
    probability: float = Field(default=0.5, ge=0, le=1)

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        x = drawn.x
        mirrored = (torch.rand(len(x), generator=generator) < self.probability).to(x.device)
        flipped = x.clone()
        flipped[mirrored] = x[mirrored].flip(3)
        return dataclasses.replace(drawn, x=flipped)


class Crop(Augmentation):
    padding: int = Field(default=4, ge=0, le=64)

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        x = drawn.x
        count, channels, height, width = x.shape
        uniform = torch.rand(2, count, 1, generator=generator).to(x.device)
        shift = (uniform * (2 * self.padding + 1)).long() - self.padding
        rows = _mirrored(torch.arange(height, device=x.device) + shift[0], height)
        columns = _mirrored(torch.arange(width, device=x.device) + shift[1], width)
        places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
        cut = x.flatten(2).gather(2, places.expand(-1, channels, -1)).view_as(x)
        return dataclasses.replace(drawn, x=cut)


def _mirrored(places: Tensor, size: int) -> Tensor:
    folded = places.remainder(2 * (size - 1))
    return torch.minimum(folded, 2 * (size - 1) - folded)
