"""NT-Xent: of the other 2N − 1 views of a batch, the one of the same sample is to be the nearest.

``−mean_i log exp(cos(z_i, z_j(i)) / τ) / Σ_{k ≠ i} exp(cos(z_i, z_k) / τ)`` (Chen et al., "A Simple Framework for Contrastive Learning of
Visual Representations", 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

__all__ = ["Projected", "nt_xent"]


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The loss of two views (N, D) of the same samples, a scalar.

    >>> views = torch.eye(3)
    >>> float(nt_xent(views, views, 0.1)) < 0.01 < float(nt_xent(views, views.roll(1, 0), 0.1))
    True
    """
    count = len(first)
    both = normalize(torch.cat([first, second]))
    likeness = (both @ both.T / temperature).fill_diagonal_(float("-inf"))
    partners = torch.arange(2 * count, device=both.device).roll(count)
    return cross_entropy(likeness, partners)


class Projected(nn.Module):
    """A network that gives embeddings, and a projector of two layers that only the loss sees."""

    def __init__(self, network: nn.Module, size: int, projection: int) -> None:
        super().__init__()
        self.network = network
        self.projector = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, projection))

    def forward(self, x: Tensor) -> Tensor:
        return self.projector(self.network(x))
