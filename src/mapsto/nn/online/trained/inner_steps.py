"""Steps of gradient descent from what is trained to other values of it, through which an outer gradient can flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.growing_network import GrowingNetwork

__all__ = ["inner_points", "leaves"]

Batch = tuple[Tensor, Tensor]


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that want gradients."""
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}


def inner_points(
    network: GrowingNetwork,
    start: Mapping[str, Tensor],
    rates: Mapping[str, Tensor],
    batches: Sequence[Batch],
    *,
    second_order: bool,
) -> list[dict[str, Tensor]]:
    """The values after each step ``θ ← θ − α ∘ ∇ CE(θ; batch)``, one a batch of inputs and labels.

    Gradients flow to `start` and to `rates`; with `second_order` through the steps' own gradients, too.
    """
    point = dict(start)
    points: list[dict[str, Tensor]] = []
    for inputs, labels in batches:
        loss = cross_entropy(network.logits_with(point, inputs), labels)
        found: Sequence[Tensor | None] = torch.autograd.grad(
            loss, list(point.values()), create_graph=second_order, retain_graph=True, allow_unused=True
        )
        point = {
            name: tensor if gradient is None else tensor - rates[name] * gradient  # pyright: ignore[reportUnnecessaryComparison]
            for (name, tensor), gradient in zip(point.items(), found, strict=True)
        }
        points.append(point)
    return points
