"""L2-SP: a penalty towards the weights that fine-tuning began with, in place of one towards zero.

``Ω(w) = α/2 ‖w − w⁰‖²`` over the pretrained parameters w, the head's left out (Li, Grandvalet and Davoine, "Explicit Inductive Bias for
Transfer Learning with Convolutional Networks", 2018).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["penalty"]


def penalty(parameters: Mapping[str, Tensor], pretrained: Mapping[str, Tensor], strength: float) -> Tensor:
    """Ω of the parameters that are in `pretrained`, a scalar; its gradient is α (w − w⁰).

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> penalty({"w": w}, {"w": torch.tensor([1.0, 0.0])}, 0.5).backward()
    >>> w.grad
    tensor([0., 1.])
    """
    moved = [(parameters[name] - before).square().sum() for name, before in pretrained.items()]
    return strength / 2 * torch.stack(moved).sum()
