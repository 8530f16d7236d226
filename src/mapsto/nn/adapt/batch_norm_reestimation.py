"""Batch norms whose means and variances are those of the pretraining and of the user's data together.

``μ = (N μ₀ + n μ₁) / (N + n)``, and so for σ², of what was found in pretraining (0), counted as N examples, and on the n at hand (1)
(Schneider et al., "Improving Robustness against Common Corruptions by Covariate Shift Adaptation", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mapsto.nn.network.inference import evaluating
from mapsto.nn.network.preprocess import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Preprocessing

__all__ = ["reestimate"]


def reestimate(
    module: nn.Module, inputs: NDArray[Any], preprocessing: Preprocessing, *, prior: int, batch_size: int = 64
) -> None:
    """Blend the statistics of every batch norm of `module` with those of raw samples (N, ...); `prior` is what the old ones count.

    Each layer sees what comes from layers that are normalised by the samples alone. A batch of one sample is left out.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    before = [_statistics(norm) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    device = next(module.parameters()).device
    with evaluating(module), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches
            norm.train()
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            if len(batch) > 1:
                module(prepare(batch, preprocessing, device=device))
    share = len(inputs) / (prior + len(inputs))
    for norm, momentum, (mean, variance, count) in zip(norms, momenta, before, strict=True):
        norm.momentum = momentum
        seen_mean, seen_variance, _ = _statistics(norm)
        norm.running_mean = mean.lerp(seen_mean, share)
        norm.running_var = variance.lerp(seen_variance, share)
        norm.num_batches_tracked = count


def _statistics(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    mean, variance, count = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if mean is None or variance is None:
        raise TypeError("a batch norm without statistics was to be estimated anew")
    return mean.clone(), variance.clone(), None if count is None else count.clone()
