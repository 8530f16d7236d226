"""The supervised contrastive loss: an example's embedding is drawn to those of its class, and away from all others of the batch.

``−mean_i 1/|P(i)| Σ_{p ∈ P(i)} log exp(z_i · z_p / τ) / Σ_{a ≠ i} exp(z_i · z_a / τ)`` with P(i) the others of i's class (Khosla et al.,
"Supervised Contrastive Learning", 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["supervised_contrastive"]


def supervised_contrastive(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The loss, a scalar; 0 where no two examples are of one class.

    Parameters
    ----------
    embeddings
        (B, D), of any length: angles count.
    labels
        Class numbers (B,).
    temperature
        τ: the smaller, the more the nearest examples of other classes count.

    >>> apart = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> supervised_contrastive(apart, labels, 0.1) < 1e-3 < 1 < supervised_contrastive(apart, labels.roll(1), 0.1)
    tensor(True)
    """
    units = nn.functional.normalize(embeddings, dim=1)
    itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
    likeness = (units @ units.T / temperature).masked_fill(itself, -torch.inf)
    logs = (likeness - likeness.logsumexp(1, keepdim=True)).masked_fill(itself, 0.0)
    alike = (labels[:, None] == labels[None]) & ~itself
    counts = alike.sum(1)
    each = (logs * alike).sum(1) / counts.clamp(min=1)
    return -each.sum() / (counts > 0).sum().clamp(min=1)
