"""Gradient descent with a learned rate for every layer and step: ``θ_l ← θ_l − α_{l,k} g_l``.

Antoniou, Edwards and Storkey, "How to Train Your MAML", 2019, section 4 (LSLR).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["rate_name", "update"]


def rate_name(parameter: str) -> str:
    """The name of the learner's tensor of rates (steps,) of a parameter; it is free: pruning leaves it as it is."""
    return f"~rates.{parameter}"


def update(
    point: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    step: int,
    rates: Mapping[str, float],
    tensors: Mapping[str, Tensor],
    memory: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Every parameter moved at the rate of its layer and step; after more steps than were trained, the last one's.

    >>> import torch
    >>> update({"w": torch.ones(1)}, {"w": torch.ones(1)}, 5, {}, {"~rates.w": torch.tensor([0.0, 0.25])}, {})
    {'w': tensor([0.7500])}
    """
    moved: dict[str, Tensor] = {}
    for name, gradient in gradients.items():
        learned = tensors.get(rate_name(name))
        moved[name] = (
            point[name] - (rates[name] if learned is None else learned[min(step, len(learned) - 1)]) * gradient
        )
    return moved
