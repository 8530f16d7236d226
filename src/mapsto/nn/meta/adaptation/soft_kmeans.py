"""Class means refined by samples without labels, each of which belongs to every class a little.

``c_k ← (Σ_i x_i [y_i = k] + Σ_j u_j z_jk) / (Σ_i [y_i = k] + Σ_j z_jk)`` with ``z_jk ∝ exp(−s ‖u_j − c_k‖²)`` over unlabelled u. Samples of
no class go to one more cluster at the origin of a learned radius r, ``z_j,0 ∝ exp(−s ‖u_j‖² / r² − log r)`` (Ren et al., "Meta-Learning for
Semi-Supervised Few-Shot Classification", 2018). Without unlabelled samples it is the nearest class mean.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from mapsto.kinds import Adaptation
from mapsto.nn.meta.adaptation import centroid
from mapsto.nn.meta.class_means import centroids, members

__all__ = ["feature_scores", "first_tensors", "head", "refined", "unlabelled_scores"]


def first_tensors(*, radius: float = 1.0) -> dict[str, Tensor]:
    """The radius as a logarithm, which keeps it positive."""
    return {"~log_radius": torch.tensor(math.log(radius))}


def refined(
    support: Tensor,
    labels: Tensor,
    unlabelled: Tensor,
    ways: int,
    *,
    scale: float = 1.0,
    steps: int = 1,
    log_radius: Tensor | None = None,
) -> Tensor:
    """Class means (..., ways, D) after `steps`, for support (..., S, D), labels (..., S), unlabelled (..., U, D).

    Parameters
    ----------
    scale
        s.
    log_radius
        Of the cluster for samples of no class; None for no such cluster.

    >>> labelled, others = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [9.0]])
    >>> refined(labelled, torch.tensor([0, 1]), others, 2)
    tensor([[0.5000],
            [9.5000]])
    """
    own = members(labels, ways).to(support.dtype)
    counts, sums = own.sum(-2).unsqueeze(-1), own.transpose(-1, -2) @ support
    means = centroids(support, labels, ways)
    for _ in range(steps):
        shares = -scale * _squares(unlabelled, means)
        if log_radius is not None:
            none = -scale * unlabelled.square().sum(-1, keepdim=True) * (-2 * log_radius).exp() - log_radius
            shares = torch.cat([shares, none], -1)
        shares = shares.softmax(-1)[..., :ways].transpose(-1, -2)
        means = (sums + shares @ unlabelled) / (counts + shares.sum(-1, keepdim=True))
    return means


def _squares(samples: Tensor, means: Tensor) -> Tensor:
    """Squared distances (..., N, ways)."""
    products = samples @ means.transpose(-1, -2)
    return samples.square().sum(-1, keepdim=True) - 2 * products + means.square().sum(-1).unsqueeze(-2)


def unlabelled_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    unlabelled: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) with samples (B, U, D) without labels; ``settings``: ``scale`` (by default 1) and ``steps`` (1)."""
    scale = centroid.scale_of(adaptation.settings)
    radius = adaptation.tensors["~log_radius"].to(support) if "~log_radius" in adaptation.tensors else None
    steps = cast("int", adaptation.settings.get("steps", 1))
    means = refined(support, support_labels, unlabelled, ways, scale=scale, steps=steps, log_radius=radius)
    return -scale * _squares(query, means)


def head(features: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """The linear layer where there are no unlabelled samples: that of the nearest class mean."""
    return centroid.head(features, labels, ways, adaptation)


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) where there are no unlabelled samples."""
    return centroid.feature_scores(support, support_labels, query, ways, adaptation)
