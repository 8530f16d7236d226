"""Attention over the support set: a query's label is the mean of the support's labels, weighted by how like it each sample is.

``p(k | q) = Σ_i a(q, x_i) [y_i = k]`` with ``a(q, x_i) = softmax_i(s · cos(f(q), f(x_i)))`` (Vinyals et al., "Matching Networks for One
Shot Learning", 2016). Scores are ``log p``. Of targets that are numbers it is the weighted mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mapsto.kinds import Adaptation
from mapsto.nn.meta.adaptation.centroid import scale_of
from mapsto.nn.meta.class_means import members

__all__ = ["feature_scores"]
PREDICTS_VALUES = True
"""Its labels may be numbers."""


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Log-probabilities (B, Q, ways) with ``settings["scale"]`` for s, by default 1; of targets (B, S, K) their means (B, Q, K).

    >>> support, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[0, 1]])
    >>> feature_scores(support, labels, torch.tensor([[[1.0, 1.0]]]), 2, Adaptation(method="matching")).exp()
    tensor([[[0.5000, 0.5000]]])
    """
    likeness = scale_of(adaptation.settings) * normalize(query, dim=-1) @ normalize(support, dim=-1).transpose(-1, -2)
    if support_labels.is_floating_point():
        return likeness.softmax(-1) @ support_labels.to(likeness.dtype)
    attention = likeness.log_softmax(-1).unsqueeze(-1)
    foreign = ~members(support_labels, ways).unsqueeze(-3)
    return attention.masked_fill(foreign, torch.finfo(attention.dtype).min / 2).logsumexp(-2)
