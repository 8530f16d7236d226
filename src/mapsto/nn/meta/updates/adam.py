"""Adam without momentum: gradients in units of their root mean square, ``v ← β₂ v + (1 − β₂) g²``, ``θ ← θ − α g / (√v̂ + ε)``.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, with β₁ = 0 and β₂ = 0.999, as Nichol, Achiam and Schulman use it
in "On First-Order Meta-Learning Algorithms", 2018. The mean square begins anew in each task.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["update"]

_DECAY = 0.999
_EPSILON = 1e-8


def update(
    point: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    step: int,
    rates: Mapping[str, float],
    tensors: Mapping[str, Tensor],
    memory: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Every parameter moved by about its rate; `memory` holds v.

    >>> import torch
    >>> update({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.5)}, 0, {"w": 0.25}, {}, {})
    {'w': tensor(0.7500)}
    """
    moved: dict[str, Tensor] = {}
    unbiased = 1 - _DECAY ** (step + 1)
    for name, gradient in gradients.items():
        square = (1 - _DECAY) * gradient.square()
        if name in memory:
            square = square + _DECAY * memory[name]
        memory[name] = square
        # Under the root, so that its derivative at a gradient of 0 is finite.
        moved[name] = point[name] - rates[name] * gradient / (square / unbiased + _EPSILON**2).sqrt()
    return moved
