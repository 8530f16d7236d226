"""What attacks raise: a number for each sample, the higher the more a network errs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["Margin", "cross_entropies", "difference_of_logits_ratio"]

Margin = Callable[[Tensor, Tensor], Tensor]
"""Scores (N, C), labels (N,) → (N,)."""


def cross_entropies(scores: Tensor, labels: Tensor) -> Tensor:
    """``−ln p_y`` of each sample: scores that are sure leave its gradient at zero.

    >>> cross_entropies(torch.zeros(1, 2), torch.tensor([0])).item()
    0.6931471824645996
    """
    return cross_entropy(scores, labels, reduction="none")


def difference_of_logits_ratio(scores: Tensor, labels: Tensor) -> Tensor:
    """``−(z_y − max_{i≠y} z_i) / (z_(1) − z_(3))``: scale and shift of scores do not matter (Croce and Hein, "Reliable Evaluation of
    Adversarial Robustness with an Ensemble of Diverse Parameter-Free Attacks", 2020). Of two classes the difference alone.

    >>> z = torch.tensor([[3.0, 1.0, 0.0]])
    >>> [round(difference_of_logits_ratio(scale * z + 5, torch.tensor([0])).item(), 3) for scale in (1, 100)]
    [-0.667, -0.667]
    """
    rows = torch.arange(len(scores), device=scores.device)
    ordered = scores.sort(1, descending=True).values
    of_label = scores[rows, labels]
    best_other = torch.where(scores.argmax(1) == labels, ordered[:, 1], ordered[:, 0])
    if scores.shape[1] < 3:
        return best_other - of_label
    return (best_other - of_label) / (ordered[:, 0] - ordered[:, 2] + 1e-12)
