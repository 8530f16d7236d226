"""Nearest class mean: a query's score for a class is its negative squared distance to the mean of the class's support.

``score(q, k) = −s · ‖f(q) − c_k‖²`` with ``c_k`` the mean of ``f(x)`` over the support of class k. Without ``‖f(q)‖²``, which is the
same for every class, this is a linear layer: ``W_k = 2 s c_k``, ``b_k = −s ‖c_k‖²`` (Snell, Swersky and Zemel, "Prototypical
Networks for Few-shot Learning", 2017). With the distance ``cosine``, embeddings and means have length 1 first: better for networks
that were never trained to be compared by distance (Chen et al., "A Closer Look at Few-shot Classification", 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mapsto.errors import DataError
from mapsto.kinds import Adaptation, Json
from mapsto.nn.meta.class_means import centroids, layer, members

__all__ = ["feature_scores", "head", "is_cosine", "leave_one_out_scores", "scale_of", "scores"]


def scores(
    support_features: Tensor,
    support_labels: Tensor,
    query_features: Tensor,
    ways: int,
    *,
    scale: float = 1.0,
    cosine: bool = False,
) -> Tensor:
    """Scores of shape (..., Q, ways) for support (..., S, D), labels (..., S) and query (..., Q, D).

    >>> support, query = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.5]])
    >>> scores(support, torch.tensor([0, 1]), query, 2)
    tensor([[-0.2500, -2.2500]])
    """
    if cosine:
        support_features, query_features = normalize(support_features, dim=-1), normalize(query_features, dim=-1)
    means = centroids(support_features, support_labels, ways)
    if cosine:
        means = normalize(means, dim=-1)
    products = query_features @ means.transpose(-1, -2)
    squares = query_features.square().sum(-1, keepdim=True) + means.square().sum(-1).unsqueeze(-2)
    return scale * (2 * products - squares)


def leave_one_out_scores(
    features: Tensor, labels: Tensor, ways: int, *, scale: float = 1.0, cosine: bool = False
) -> Tensor:
    """Scores (..., N, ways) of features (..., N, D), each against the mean of its class's others; labels (..., N).

    A class mean without x is ``n / (n − 1)`` times as far from x as the mean with it. Raises `DataError` where a class has
    one example only.

    >>> leave_one_out_scores(torch.tensor([[0.0], [2.0], [5.0], [5.0]]), torch.tensor([0, 0, 1, 1]), 2)[0]
    tensor([ -4., -25.])
    """
    own = members(labels, ways)
    counts = own.sum(-2).to(features.dtype)
    if bool((counts == 1).any()):
        raise DataError(
            "a class has one example only, none is left when it is left out", hint="give two or more of each"
        )
    if cosine:
        return -scale * _squares_without_oneself(normalize(features, dim=-1), own)
    squares = -scores(features, labels, features, ways)
    farther = (counts / (counts - 1)).square().unsqueeze(-2)
    return -scale * torch.where(own, squares * farther, squares)


def _squares_without_oneself(units: Tensor, own: Tensor) -> Tensor:
    """Squared distances (..., N, ways) of unit vectors (..., N, D) to the directions of the means of each class's others."""
    mine = own.to(units.dtype)
    sums = mine.transpose(-1, -2) @ units
    products = units @ sums.transpose(-1, -2) - mine
    squares = sums.square().sum(-1).unsqueeze(-2) - mine * (2 * products + 1)
    return 2 - 2 * products / squares.clamp_min(1e-12).sqrt()


def head(features: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """The linear layer that ranks as `scores` does: weight (ways, D) and bias (ways,) from features (S, D), labels (S,).

    With the distance `cosine` an embedding as long as the examples' are on average gets their scale, a longer one a larger.

    >>> weight, bias = head(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 1]), 2, Adaptation(method="centroid"))
    >>> torch.tensor([[0.5]]) @ weight.T + bias
    tensor([[ 0., -2.]])
    """
    scale = scale_of(adaptation.settings)
    if is_cosine(adaptation.settings):
        means = normalize(centroids(normalize(features, dim=-1), labels, ways), dim=-1)
        length = features.norm(dim=-1).mean(-1)[..., None, None].clamp_min(1e-12)
        return 2 * scale * means / length, means.new_zeros(means.shape[:-1])
    return layer(centroids(features, labels, ways), scale=scale)


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """`scores` with ``settings["scale"]``, by default 1, and ``settings["distance"]``, by default euclidean."""
    return scores(
        support, support_labels, query, ways, scale=scale_of(adaptation.settings), cosine=is_cosine(adaptation.settings)
    )


def scale_of(settings: Mapping[str, Json]) -> float:
    """``settings["scale"]``, by default 1."""
    scale = settings.get("scale", 1.0)
    return float(scale) if isinstance(scale, (int, float)) else 1.0


def is_cosine(settings: Mapping[str, Json]) -> bool:
    """Whether ``settings["distance"]`` is cosine."""
    return settings.get("distance") == "cosine"
