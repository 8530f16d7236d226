"""Maximum mean discrepancy: how far apart the means of two sets of features lie in the space of several Gaussian kernels.

``MMD² = mean k(s, s') + mean k(t, t') − 2 mean k(s, t)`` with ``k(a, b) = Σ_i exp(−‖a − b‖² / (2^i σ²))``, σ² the mean
squared distance in the batch (Gretton et al., "A Kernel Two-Sample Test", 2012; as a loss: Long et al., "Learning Transferable Features
with Deep Adaptation Networks", 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_discrepancy"]


def mean_discrepancy(source: Tensor, target: Tensor, *, kernels: int = 5) -> Tensor:
    """MMD² of features (N, D) and (M, D), a scalar of 0 or more; the widths go by a factor of 2 around σ².

    >>> rows = torch.tensor([[0.0], [1.0], [2.0]])
    >>> float(mean_discrepancy(rows, rows)), float(mean_discrepancy(rows, rows + 9)) > 1
    (0.0, True)
    """
    both = torch.cat([source, target])
    squared = both.square().sum(1)
    distances = (squared[:, None] + squared[None] - 2 * both @ both.T).clamp_min(0)
    count = len(both)
    width = (distances.detach().sum() / max(count * (count - 1), 1)).clamp_min(1e-12)
    alike = torch.zeros_like(distances)
    for place in range(kernels):
        alike = alike + torch.exp(-distances / (width * 2.0 ** (place - kernels // 2)))
    ours = len(source)
    within = alike[:ours, :ours].mean() + alike[ours:, ours:].mean()
    return (within - 2 * alike[:ours, ours:].mean()).clamp_min(0)
