"""Gradient descent with a learned rate for every single parameter: ``θ ← θ − a ∘ g``.

Li, Zhou, Chen and Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    """Every parameter moved by its own rates: the learner's tensor of the same name and shape, else that of `rates`.

    >>> import torch
    >>> update({"w": torch.ones(2)}, {"w": torch.ones(2)}, 0, {}, {"w": torch.tensor([0.0, 1.0])}, {})
    {'w': tensor([1., 0.])}
    """
    return {
        name: point[name] - (tensors[name] if name in tensors else rates[name]) * gradient
        for name, gradient in gradients.items()
    }
