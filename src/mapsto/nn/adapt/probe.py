"""A head fitted to the embeddings of a few labelled examples: where fine-tuning begins.

Fine-tuning from a random head bends the embedding to a head that knows nothing; from a linear probe it does not have to (Kumar et al.,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mapsto.nn.adapt import logistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balancing", "centroid_head", "probed"]


def probed(
    features: NDArray[Any], labels: NDArray[Any], classes: int, strength: float, *, weights: NDArray[Any] | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) of logistic regression with C = `strength` on features (N, D) of classes (N,), weighted (N,)."""
    weight, bias = logistic.fit(features, labels, classes, strength=strength, weights=weights)
    return torch.as_tensor(weight).float(), torch.as_tensor(bias).float()


def balancing(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Weights (N,) of examples by which each class weighs as much as any other.

    >>> balancing(np.array([0, 0, 0, 1]), 2).round(2)
    array([0.67, 0.67, 0.67, 2.  ])
    """
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1)))[labels]


def centroid_head(features: Tensor, labels: NDArray[Any], classes: int) -> tuple[Tensor, Tensor]:
    """Class means as the head (K, D) and (K,), at a scale where scores of the examples differ by a few units."""
    from mapsto.nn.meta.adaptation.centroid import head
    from mapsto.nn.meta.adaptation_methods import CENTROID

    weight, bias = head(features, torch.as_tensor(labels), classes, CENTROID)
    spread = float((features @ weight.T + bias).std(1).mean().clamp_min(1e-6))
    return 2 * weight / spread, 2 * bias / spread
