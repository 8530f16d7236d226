"""The nearest labelled examples as a classifier on features: they vote by how near they are.

``p_k(z) ∝ ε + Σ_{i among the n nearest} y_ik exp((cos(u, u_i) − cos(u, u_1)) / T)`` with u the root of a feature vector less the examples'
mean (Cover and Hart, "Nearest Neighbor Pattern Classification", 1967; the weights as in Wu et al., "Unsupervised Feature Learning via
Non-Parametric Instance Discrimination", 2018). The scores are ``log p``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.cross_validation import folds_of, log_loss, out_of_fold
from mapsto.nn.adapt.logistic import normalised
from mapsto.nn.adapt.ridge import rooted, targets_of

__all__ = ["COUNTS", "FLOOR", "NEIGHBOURS", "TEMPERATURE", "Nearest", "chosen", "fit"]

COUNTS: tuple[int, ...] = (1, 3, 5, 10, 20, 30)
"""Numbers of neighbours that are tried."""
NEIGHBOURS = 10
"""How many vote where nothing can be tried."""
TEMPERATURE = 0.07
FLOOR = 1e-2
"""ε: what a class without a vote gets, as a share of the nearest neighbour's."""
_FOLDS = 5


class Nearest(NamedTuple):
    """Examples that vote: called with features (M, D) it gives scores (M, K), the logarithms of shares."""

    support: NDArray[np.float64]
    """(N, D), of length 1."""
    centre: NDArray[np.float64]
    """(D,)."""
    votes: NDArray[np.float64]
    """(N, K)."""
    neighbours: int
    temperature: float

    def __call__(self, features: NDArray[Any]) -> NDArray[np.float64]:
        likeness = normalised(rooted(np.asarray(features, np.float64)) - self.centre) @ self.support.T
        nearest = np.argsort(-likeness, axis=1, kind="stable")[:, : self.neighbours]
        near = np.take_along_axis(likeness, nearest, 1)
        shares = np.exp((near - near[:, :1]) / self.temperature)
        voted = np.einsum("mn,mnk->mk", shares, self.votes[nearest]) + FLOOR
        return np.log(voted / voted.sum(1, keepdims=True))


def fit(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
    weights: NDArray[Any] | None = None,
) -> Nearest:
    """The examples, ready to vote.

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
    rows = rooted(np.asarray(features, np.float64))
    centre = rows.mean(0)
    votes = targets_of(labels, classes) * (1.0 if weights is None else np.asarray(weights)[:, None])
    return Nearest(normalised(rows - centre), centre, votes, min(neighbours, len(rows)), temperature)


def chosen(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    rng: np.random.Generator,
    *,
    temperature: float = TEMPERATURE,
    weights: NDArray[Any] | None = None,
) -> tuple[int, dict[int, float]]:
    """How many neighbours have the least cross-validated log-loss, and that of each.

    `NEIGHBOURS` and no losses where nothing can be left out.
    """
    fold = folds_of(labels, max(2, min(_FOLDS, int(np.bincount(labels).max()))), rng)
    if not (fold >= 0).any():
        return NEIGHBOURS, {}
    losses: dict[int, float] = {}
    for neighbours in COUNTS:

        def fitted(rows: NDArray[Any], index: NDArray[Any], neighbours: int = neighbours) -> Nearest:
            own = None if weights is None else weights[index]
            return fit(rows, labels[index], classes, neighbours=neighbours, temperature=temperature, weights=own)

        losses[neighbours] = log_loss(out_of_fold(fitted, features, np.arange(len(labels)), fold), labels, weights)
    return min(losses, key=losses.__getitem__), losses
