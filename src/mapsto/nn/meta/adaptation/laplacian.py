"""Label the queries of a task together: each is near a class mean, and queries that are near each other get the same label.

``min_Y Σ_q Σ_k y_qk d_qk + λ/2 Σ_{q,p} w_qp ‖y_q − y_p‖²`` over labels on the simplex, with d the squared distance to the class mean and
w = 1/m between two that are among each other's m nearest, half of it where only one is; by the bound
``y_q ← softmax_k(−d_qk + λ Σ_p w_qp y_pk)`` (Ziko et al., "Laplacian Regularized Few-Shot Learning", 2020). Class means are first rectified
by the queries, which are shifted by the difference of the means of support and queries (Liu et al., "Prototype Rectification for
Few-Shot Learning", 2020).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mapsto.kinds import Adaptation
from mapsto.nn.meta.adaptation import centroid
from mapsto.nn.meta.adaptation.soft_kmeans import refined
from mapsto.nn.meta.class_means import centroids

__all__ = ["feature_scores", "neighbours", "propagated"]


def neighbours(query: Tensor, count: int) -> Tensor:
    """How near queries (..., Q, D) are to each other, symmetric (..., Q, Q): the mean over both of being among the `count` nearest.

    >>> neighbours(torch.tensor([[0.0], [1.0], [3.0]]), 1).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]]
    """
    queries = query.shape[-2]
    distances = torch.cdist(query, query)
    distances = distances + torch.diag_embed(torch.full((queries,), torch.inf, dtype=query.dtype, device=query.device))
    count = min(count, queries - 1)
    nearest = distances.topk(count, dim=-1, largest=False).indices
    found = torch.zeros_like(distances).scatter(-1, nearest, 1 / max(count, 1))
    return (found + found.transpose(-1, -2)) / 2


def propagated(distances: Tensor, affinity: Tensor, *, weight: float, steps: int) -> Tensor:
    """The logarithm of y, shape (..., Q, ways), for distances (..., Q, ways) and affinity w (..., Q, Q), after `steps`.

    >>> propagated(torch.tensor([[1.0, 1.1], [0.0, 9.0]]), torch.eye(2).flip(0), weight=1.0, steps=5).argmax(-1)
    tensor([0, 0])
    """
    logits = -distances
    for _ in range(steps):
        logits = -distances + weight * affinity @ logits.softmax(-1)
    return logits.log_softmax(-1)


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Log-probabilities (B, Q, ways) of the queries of a task, which depend on each other.

    Its settings: ``scale`` and ``distance`` as for class means, ``weight`` (λ, by default 1), ``neighbours`` (3), ``steps`` (20)
    and ``rectify`` (true).
    """
    scale, cosine = centroid.scale_of(adaptation.settings), centroid.is_cosine(adaptation.settings)
    if cosine:
        support, query = normalize(support, dim=-1), normalize(query, dim=-1)
    if adaptation.settings.get("rectify", True):
        query = query + support.mean(-2, keepdim=True) - query.mean(-2, keepdim=True)
        means = refined(support, support_labels, query, ways, scale=scale)
    else:
        means = centroids(support, support_labels, ways)
    if cosine:
        means, query = normalize(means, dim=-1), normalize(query, dim=-1)
    squares = torch.cdist(query, means).square()
    affinity = neighbours(query, cast("int", adaptation.settings.get("neighbours", 3)))
    weight, steps = (
        cast("float", adaptation.settings.get("weight", 1.0)),
        cast("int", adaptation.settings.get("steps", 20)),
    )
    return propagated(scale * squares, affinity, weight=weight, steps=steps)
