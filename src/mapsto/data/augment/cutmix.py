"""Paste a box of another image of the batch into each, and mix their labels by area: a network learns to see two things at once.

A box with sides ``√(1 − λ)`` of the image's at a random centre is taken from image j, λ from Beta(α, α); ``y' = λ' y_i + (1 − λ') y_j``
with λ' the share of pixels left, since what sticks out of the image is cut off (Yun et al., "CutMix: Regularization Strategy to Train
Strong Classifiers with Localizable Features", 2019).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Cutmix"]


class Cutmix(Augmentation):
    """A prepared batch of images (N, C, H, W), each with a box of another, for classes and labels.

    >>> import torch
    >>> batch = Drawn(x=torch.arange(2.0).view(2, 1, 1, 1).expand(-1, 1, 8, 8), targets=torch.arange(2), classes=2)
    >>> mixed = Cutmix().draw(batch, torch.Generator().manual_seed(1))
    >>> torch.equal(mixed.x.mean((1, 2, 3)), mixed.targets[:, 1])
    True
    """

    mixes: ClassVar[bool] = True

    alpha: float = Field(default=1.0, gt=0, le=100)
    """α: 1, as in the paper, has boxes of every size alike often."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._boxes import inside
        from mapsto.data.augment._mixing import beta_shares, mixed_targets

        x = drawn.x
        count, _, height, width = x.shape
        extent = (1 - beta_shares(self.alpha, count, generator)).sqrt().expand(2, -1).to(x.device)
        centre = torch.rand(2, count, generator=generator).to(x.device)
        order = torch.randperm(count, generator=generator).to(x.device)
        pasted = inside(centre, extent, (height, width))
        targets, weights = mixed_targets(drawn, order, 1 - pasted.float().mean((1, 2, 3)))
        return dataclasses.replace(drawn, x=torch.where(pasted, x[order], x), targets=targets, weights=weights)
