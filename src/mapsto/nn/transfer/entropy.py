"""Entropy of predictions, and what trains when it is made small: the scale and shift of norm layers.

``H = −mean_i Σ_k p_ik log p_ik`` (Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", 2021).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mapsto.errors import DomainError

__all__ = ["entropy", "norms_of", "only_norms"]


def entropy(scores: Tensor) -> Tensor:
    """The mean entropy of softmax(scores (N, K)) in nats, a scalar.

    >>> import torch
    >>> round(float(entropy(torch.zeros(1, 4))), 4)
    1.3863
    """
    logs = scores.log_softmax(1)
    return -(logs.exp() * logs).sum(1).mean()


def norms_of(module: nn.Module, *, where: str) -> list[nn.Module]:
    """The norm layers with a scale. Raises `DomainError` for a network without any."""
    kinds = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    found: list[nn.Module] = [part for part in module.modules() if isinstance(part, kinds) and part.weight is not None]  # pyright: ignore[reportUnnecessaryComparison]
    if not found:
        raise DomainError(
            f"{type(module).__name__} has no norm layer with a scale and a shift, which are all that is trained",
            where=where,
            hint="use adapt.coral, or a network with norms, such as networks.resnet_cifar or networks.vit",
        )
    return found


def only_norms(module: nn.Module, *, where: str) -> nn.Module:
    """The module, whose norm layers' parameters alone want gradients. Raises `DomainError` for a network without any."""
    norms = norms_of(module, where=where)
    module.requires_grad_(False)
    for norm in norms:
        norm.requires_grad_(True)
    return module
