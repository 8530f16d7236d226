"""Blend each sample with another of its batch, and their targets alike: between samples a network learns to answer in between.

``x' = λ x_i + (1 − λ) x_j``, ``y' = λ y_i + (1 − λ) y_j`` with λ from Beta(α, α), a λ of its own for each sample (Zhang et al., "mixup:
Beyond Empirical Risk Minimization", 2018, one for the whole batch).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Mixup"]


class Mixup(Augmentation):
    """A prepared batch of which each sample is a blend of two, for classes, labels and values.

    >>> import torch
    >>> batch = Drawn(x=torch.eye(3), targets=torch.arange(3), classes=3)
    >>> mixed = Mixup(alpha=1).draw(batch, torch.Generator().manual_seed(0))
    >>> torch.allclose(mixed.x, mixed.targets), torch.allclose(mixed.targets.sum(1), torch.ones(3))
    (True, True)
    """

    mixes: ClassVar[bool] = True
    mixes_values: ClassVar[bool] = True
    on: ClassVar[tuple[SampleKind, ...]] = ("images", "rows")

    alpha: float = Field(default=0.2, gt=0, le=100)
    """α: the larger, the more even the blends; 0.2 for ImageNet and 1 for CIFAR in the paper."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        import torch

        from mapsto.data.augment._mixing import beta_shares, mixed_targets

        x = drawn.x
        share = beta_shares(self.alpha, len(x), generator)
        order = torch.randperm(len(x), generator=generator)
        targets, weights = mixed_targets(drawn, order, share)
        rest = (1 - share).to(x).view(-1, *[1] * (x.ndim - 1))
        blend = x.lerp(x[order.to(x.device)], rest)
        return dataclasses.replace(drawn, x=blend, targets=targets, weights=weights)
