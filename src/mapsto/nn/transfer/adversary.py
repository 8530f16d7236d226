"""A domain classifier behind a layer that turns gradients around: it learns to tell the domains apart, and the features to prevent it.

``∂R(z)/∂z = −λ I``: ascent for the features where the classifier descends (Ganin et al., "Domain-Adversarial Training of Neural Networks",
2016).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["DomainClassifier", "reversed_gradient"]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reversed_gradient(features: Tensor, strength: float) -> Tensor:
    """The same features; the gradient of what is made of them comes back times −`strength`.

    >>> x = torch.ones(1, requires_grad=True)
    >>> (3 * reversed_gradient(x, 0.5)).backward()
    >>> float(x.grad)
    -1.5
    """
    return _Reversal.apply(features, strength)  # pyright: ignore[reportReturnType]


class DomainClassifier(nn.Module):
    """Features (N, D) → the log-odds (N,) that they are of the source."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).squeeze(1)

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of both domains, each of which counts one half."""
        losses = [
            binary_cross_entropy_with_logits(self(part), torch.full((len(part),), truth, device=part.device))
            for part, truth in ((source, 1.0), (target, 0.0))
        ]
        return (losses[0] + losses[1]) / 2
