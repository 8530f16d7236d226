"""The nearest labelled examples as a classifier on features: they vote by how near they are.

``p_k(z) ∝ ε + Σ_{i among the n nearest} y_ik exp(cos(z, z_i) / T)`` (Cover and Hart, "Nearest Neighbor Pattern Classification", 1967; the
weights as in Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018). The scores are ``log p``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.cross_validation import Scorer
from mapsto.nn.adapt.logistic import normalised
from mapsto.nn.adapt.ridge import targets_of

__all__ = ["FLOOR", "NEIGHBOURS", "TEMPERATURE", "fit"]

NEIGHBOURS, TEMPERATURE = 10, 0.07
FLOOR = 1e-2
"""ε: what a class without a vote gets, as a share of the nearest neighbour's."""


def fit(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
    weights: NDArray[Any] | None = None,
) -> Scorer:
    """A function from features (M, D) to scores (M, K), the logarithms of shares.

    Parameters
    ----------
    features, labels, classes
        (N, D); class numbers (N,) or shares (N, K); K.
    neighbours
        How many vote, at most N.
    temperature
        T: smaller lets the nearest decide.
    weights
        Of the examples' votes, (N,).

    >>> scores = fit(np.eye(3), np.array([0, 1, 1]), 2, neighbours=1)(np.array([[1.0, 0.1, 0.0], [0.0, 0.1, 1.0]]))
    >>> scores.argmax(1).tolist()
    [0, 1]
    """
    support = normalised(np.asarray(features, np.float64))
    votes = targets_of(labels, classes) * (1.0 if weights is None else np.asarray(weights)[:, None])
    count = min(neighbours, len(support))

    def scores(asked: NDArray[Any]) -> NDArray[np.float64]:
        likeness = normalised(np.asarray(asked, np.float64)) @ support.T
        nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        near = np.take_along_axis(likeness, nearest, 1)
        shares = np.exp((near - near[:, :1]) / temperature)
        voted = np.einsum("mn,mnk->mk", shares, votes[nearest]) + FLOOR
        return np.log(voted / voted.sum(1, keepdims=True))

    return scores
