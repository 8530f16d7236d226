"""A cosine classifier on the frozen embedding, fitted to the support set by gradient descent from the class means.

``score(q, k) = s · cos(w_k, f(q))`` with w moved against ``∇_w mean_i −log softmax(score(x_i))[y_i]`` (Chen et al., "A Closer Look
at Few-shot Classification", 2019, Baseline++). The gradient is written out: adapting needs no automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mapsto.kinds import Adaptation, Json
from mapsto.nn.meta.adaptation.centroid import scale_of
from mapsto.nn.meta.class_means import centroids, members

__all__ = ["Classifier", "feature_scores", "fitted", "head"]


class Classifier(nn.Module):
    """A network that gives embeddings, and the directions of all classes it is trained on: scores (N, classes)."""

    def __init__(self, network: nn.Module, size: int, classes: int, scale: float) -> None:
        super().__init__()
        self.network, self._scale = network, scale
        self.weight = nn.Parameter(torch.randn(classes, size) / size**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.network(inputs)
        return self._scale * normalize(features, dim=-1) @ normalize(self.weight, dim=-1).T


def fitted(units: Tensor, labels: Tensor, ways: int, *, scale: float, steps: int, rate: float) -> Tensor:
    """Directions w of length 1, shape (..., ways, D), after `steps`, for units (..., S, D) of length 1 and labels (..., S).

    >>> fitted(torch.eye(2), torch.tensor([0, 1]), 2, scale=10.0, steps=5, rate=0.1).round(decimals=1).abs()
    tensor([[1., 0.],
            [0., 1.]])
    """
    own = members(labels, ways).to(units.dtype)
    weight = normalize(centroids(units, labels, ways), dim=-1)
    for _ in range(steps):
        wrong = (scale * units @ weight.transpose(-1, -2)).softmax(-1) - own
        gradient = scale * wrong.transpose(-1, -2) @ units / units.shape[-2]
        along = (gradient * weight).sum(-1, keepdim=True) * weight
        weight = normalize(weight - rate * (gradient - along), dim=-1)
    return weight


def _directions(features: Tensor, labels: Tensor, ways: int, settings: Mapping[str, Json]) -> tuple[Tensor, float]:
    scale = scale_of(settings)
    steps, rate = cast("int", settings.get("steps", 100)), cast("float", settings.get("rate", 0.01))
    return fitted(normalize(features, dim=-1), labels, ways, scale=scale, steps=steps, rate=rate), scale


def head(features: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """The linear layer that ranks as the cosine classifier does: weight (ways, D) and a bias of 0.

    An embedding as long as the examples' are on average gets their scale, a longer one a larger.
    """
    weight, scale = _directions(features, labels, ways, adaptation.settings)
    length = features.norm(dim=-1).mean(-1)[..., None, None].clamp_min(1e-12)
    return scale * weight / length, weight.new_zeros(weight.shape[:-1])


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) with ``settings``' ``scale`` (by default 1), ``steps`` (100) and ``rate`` (0.01)."""
    weight, scale = _directions(support, support_labels, ways, adaptation.settings)
    return scale * normalize(query, dim=-1) @ weight.transpose(-1, -2)
