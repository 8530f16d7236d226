"""Gradient descent at one rate: ``θ ← θ − α g`` (Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning", 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["update"]


def update(
    point: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    step: int,
    rates: Mapping[str, float],
    tensors: Mapping[str, Tensor],
    memory: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Every parameter moved against its gradient.

    >>> update({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.5)}, 0, {"w": 0.5}, {}, {})
    {'w': tensor(0.7500)}
    """
    return {name: torch.sub(point[name], gradient, alpha=rates[name]) for name, gradient in gradients.items()}
