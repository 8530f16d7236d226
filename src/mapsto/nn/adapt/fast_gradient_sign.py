"""Adversarial examples in one step: each input value moved by ε in the direction that raises the loss, from a random start.

``δ ← U(−ε, ε)``, then ``δ ← clip(δ + 1.25 ε · sign ∇_δ ℓ(f(x + δ), y), −ε, ε)`` (Goodfellow et al., "Explaining and Harnessing Adversarial
Examples", 2015; the random start: Wong et al., "Fast is Better than Free", 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mapsto.kinds import Preprocessing

__all__ = ["attacked"]


def attacked(x: Tensor, loss: Callable[[Tensor], Tensor], epsilon: float, preprocessing: Preprocessing) -> Tensor:
    """Inputs (N, ...) as a network is given them, moved by at most `epsilon`; `loss` gives a scalar of such inputs.

    Of images ε is in units of their values from 0 to 1, which they do not leave; of other inputs in the inputs' own. Draws from the global
    generator.

    >>> before = Preprocessing(channels=1, size=(1, 1), mean=(0.5,), std=(0.5,))
    >>> moved = attacked(torch.tensor([0.0, 0.99]).view(2, 1, 1, 1), lambda x: x.sum(), 0.1, before).flatten()
    >>> bool(0 < moved[0] <= 0.2), bool(0.99 < moved[1] <= 1.0)  # 0.1 of what is divided by a standard deviation of 0.5
    (True, True)
    """
    image = preprocessing.kind == "image"
    shape = (1, -1, *[1] * (x.ndim - 2))
    std = x.new_tensor(preprocessing.std).view(shape) if image else x.new_ones(())
    most = epsilon / std * torch.ones_like(x)
    moved = (2 * torch.rand_like(x) - 1) * most
    at = (x.detach() + moved).requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(at), at)
    moved = torch.clamp(moved + 1.25 * most * gradient.sign(), -most, most)
    result = x.detach() + moved
    if not image:
        return result
    mean = x.new_tensor(preprocessing.mean).view(shape)
    return torch.clamp(result, (0 - mean) / std, (1 - mean) / std)
