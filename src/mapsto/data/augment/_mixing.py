"""What operations that mix samples share: how much of each, with which other, and what becomes of their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mapsto.data.augment._base import Drawn

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["beta_shares", "mixed_targets"]


def beta_shares(alpha: float, count: int, generator: Generator) -> Tensor:
    """λ of each sample, drawn from Beta(alpha, alpha), shape (count,)."""
    random = np.random.default_rng(
        int(torch.randint(2**62, (), generator=generator))
    )  # torch's Beta takes no generator
    return torch.as_tensor(random.beta(alpha, alpha, count), dtype=torch.float32)


def mixed_targets(drawn: Drawn, order: Tensor, share: Tensor) -> tuple[Tensor, Tensor | None]:
    """Targets and weights of samples of which a `share` (N,) is left and the rest is of those at `order` (N,).

    Chosen so that the weighted loss of a mixed sample is the mixture of both weighted losses: ``w = λ w_i + (1 − λ) w_j`` and
    ``y = (λ w_i y_i + (1 − λ) w_j y_j) / w``. Without weights the shares alone count.

    >>> half = Drawn(x=torch.zeros(2, 1), targets=torch.tensor([0, 2]), classes=3, weights=torch.tensor([1.0, 3.0]))
    >>> mixed_targets(half, torch.tensor([1, 0]), torch.tensor([0.5, 1.0]))
    (tensor([[0.2500, 0.0000, 0.7500],
            [0.0000, 0.0000, 1.0000]]), tensor([2., 3.]))
    """
    targets = drawn.targets
    if not targets.is_floating_point():
        targets = torch.nn.functional.one_hot(targets, drawn.classes).float()
    order, share = order.to(targets.device), share.to(targets.device)
    own, other = (
        (share, 1 - share) if drawn.weights is None else (share * drawn.weights, (1 - share) * drawn.weights[order])
    )
    whole = own + other
    own = torch.where(whole > 0, own / whole, share)[:, None]
    return own * targets + (1 - own) * targets[order], None if drawn.weights is None else whole
