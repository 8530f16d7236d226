"""Feature-wise transformations: random scales and shifts of what batch norms give, to make features of many domains in training.

``y = γ z + β`` for a batch norm's output z, with ``γ ~ N(1, softplus(θ_γ))`` and ``β ~ N(0, softplus(θ_β))`` a channel (Tseng, Lee, Huang
and Yang, "Cross-Domain Few-Shot Classification via Learned Feature-Wise Transformation", 2020).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mapsto.errors import DomainError
from mapsto.nn.meta.batch_norm import norm_paths

__all__ = ["SCALE", "SHIFT", "Noise", "channels", "deviation", "noise", "transformed"]

SCALE, SHIFT = 0.3, 0.5
"""θ of scale and shift, in the paper fixed, or the first values of those that are learned."""
Noise: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Path of a batch norm → γ and β, shape (C,) each."""


def deviation(parameter: Tensor) -> Tensor:
    """The standard deviation that a parameter stands for: a softplus so sharp that it is the parameter where that is above 0.1.

    >>> deviation(torch.tensor([0.3, -1.0])).tolist()
    [0.30000001192092896, 0.0]
    """
    return softplus(parameter, beta=100.0)


def channels(module: nn.Module) -> dict[str, int]:
    """Path → channels of every batch norm. Raises `DomainError` where there is none."""
    found: dict[str, int] = {}
    for path in norm_paths(module):
        part = module.get_submodule(path)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            found[path] = part.num_features
    if not found:
        raise DomainError(
            "feature-wise transformations follow batch norms, the network has none",
            where="feature noise",
            hint="turn it off, or choose a network with batch norms",
        )
    return found


def noise(
    module: nn.Module, strength: float = 1.0, learned: Mapping[str, tuple[Tensor, Tensor]] | None = None
) -> Noise:
    """Scales and shifts of every batch norm, drawn from torch's global generator.

    Parameters
    ----------
    module
        The network.
    strength
        Factor of both deviations.
    learned
        θ of each batch norm, shape (C,) each; by default `SCALE` and `SHIFT` everywhere.

    >>> drawn = noise(nn.BatchNorm2d(1000))
    >>> [round(part.std().item(), 1) for part in drawn[""]]
    [0.3, 0.5]
    """
    found: Noise = {}
    for path, count in channels(module).items():
        # Drawn on the CPU, so that every device sees the same.
        scale, shift = torch.randn(count), torch.randn(count)
        place = next(module.parameters())
        scale, shift = scale.to(place), shift.to(place)
        spreads = (SCALE, SHIFT) if learned is None else tuple(deviation(part) for part in learned[path])
        found[path] = (1 + strength * spreads[0] * scale, strength * spreads[1] * shift)
    return found


@contextmanager
def transformed(module: nn.Module, drawn: Noise) -> Generator[nn.Module]:
    """Within the block every batch norm of `module` gives ``γ z + β``; it works with `norms.task_norms` and under `vmap`.

    >>> net = nn.BatchNorm1d(1).eval()
    >>> with transformed(net, {"": (torch.tensor([2.0]), torch.tensor([1.0]))}):
    ...     net(torch.tensor([[1.0]])).item().__round__(3)
    3.0
    >>> net(torch.tensor([[1.0]])).item().__round__(3)
    1.0
    """
    handles = [
        module.get_submodule(path).register_forward_hook(partial(_transform, scale=scale, shift=shift))
        for path, (scale, shift) in drawn.items()
    ]
    try:
        yield module
    finally:
        for handle in handles:
            handle.remove()


def _transform(_: nn.Module, given: object, output: Tensor, *, scale: Tensor, shift: Tensor) -> Tensor:
    shape = (1, -1, *(1,) * (output.ndim - 2))
    return output * scale.view(shape) + shift.view(shape)
