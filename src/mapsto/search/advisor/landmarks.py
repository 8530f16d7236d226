"""Quick landmarks: how far simple rules get on labelled examples, each left out in turn, which costs no training.

What a nearest neighbour, the class means and a ridge regression come to on an embedding says much of what a recipe on it will come to
(Pfahringer, Bensusan and Giraud-Carrier, "Meta-learning by Landmarking Various Learning Algorithms", 2000). The intrinsic dimension is that
of Facco et al., "Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information", 2017: ``d = N / Σ ln(r₂ / r₁)``.
Neither the order of the examples nor that of the classes decides any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "RULES", "dimension", "landmarks", "squared_distances"]

RULES = ("nearest", "centroid", "ridge")
MOST = 600
"""So many examples are looked at; of more those that a digest of their content puts first."""


def landmarks(rows: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Shares that each rule gets right of examples that it did not see, the intrinsic dimension, and how far apart the classes lie.

    Parameters
    ----------
    rows
        (N, D), finite.
    labels
        Class numbers (N,), of which there are two or more.

    Returns
    -------
    dict
        ``nearest``, ``centroid`` and ``ridge`` in [0, 1], of the examples that are not alone in their class, and left out where all are;
        ``dimension`` where distances tell it; ``separation`` in [0, 1], the share of the variance that is between classes.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 20)
    >>> found = landmarks(rng.normal(size=(40, 5)) + 6 * labels[:, None], labels)
    >>> found["nearest"], found["centroid"], found["ridge"], found["separation"] > 0.8
    (1.0, 1.0, 1.0, True)
    """
    rows = np.asarray(rows, np.float64)
    numbers = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(numbers)
    judged = counts[numbers] > 1
    found: dict[str, float] = {}
    apart = squared_distances(rows)
    if judged.any():
        found |= {
            "nearest": float(_nearest_is_right(apart, numbers)[judged].mean()),
            "centroid": float((_centroid_scores(rows, numbers, counts).argmax(1) == numbers)[judged].mean()),
            "ridge": float((_ridge_scores(rows, numbers, counts).argmax(1) == numbers)[judged].mean()),
        }
    if (size := dimension(apart)) is not None:
        found["dimension"] = size
    centred = rows - rows.mean(0)
    total = float(np.square(centred).sum())
    if total > 0:
        means = np.stack([centred[numbers == number].mean(0) for number in range(len(counts))])
        found["separation"] = float((counts * np.square(means).sum(1)).sum() / total)
    return found


def dimension(apart: NDArray[np.float64]) -> float | None:
    """The intrinsic dimension by squared distances (N, N); None where fewer than five points are apart from two others.

    >>> line = np.random.default_rng(0).random((400, 1)) @ np.ones((1, 7))
    >>> 0.8 < (dimension(squared_distances(line)) or 0) < 1.25
    True
    """
    if len(apart) < 3:
        return None
    two = np.sqrt(np.sort(apart, axis=1)[:, 1:3])
    known = (two[:, 0] > 0) & (two[:, 1] > two[:, 0])
    if known.sum() < 5:
        return None
    return float(known.sum() / np.log(two[known, 1] / two[known, 0]).sum())


def squared_distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, N), 0 on the diagonal, of rows around their mean."""
    rows = rows - rows.mean(0)
    lengths = np.square(rows).sum(1)
    apart = np.maximum(lengths[:, None] + lengths - 2 * rows @ rows.T, 0.0)
    apart[apart < 1e-12 * max(float(lengths.max(initial=0.0)), 1e-300)] = 0.0
    np.fill_diagonal(apart, 0.0)
    return apart


def _nearest_is_right(apart: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each example the share of its nearest neighbours (several where they are equally near) that are of its class."""
    others = apart + np.diag(np.full(len(apart), np.inf))
    near = others <= others.min(1, keepdims=True) * (1 + 1e-9)
    return (near & (numbers[:, None] == numbers)).sum(1) / near.sum(1)


def _centroid_scores(
    rows: NDArray[np.float64], numbers: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Minus the squared distances (N, K) from the class means, of its own class without the example."""
    sums = np.stack([rows[numbers == number].sum(0) for number in range(len(counts))])
    means = sums / counts[:, None]
    scores = 2 * rows @ means.T - np.square(means).sum(1)
    each = np.arange(len(rows))
    own = (sums[numbers] - rows) / np.maximum(counts[numbers] - 1, 1)[:, None]
    scores[each, numbers] = 2 * (rows * own).sum(1) - np.square(own).sum(1)
    scores[each[counts[numbers] == 1], numbers[counts[numbers] == 1]] = -np.inf
    return scores


def _ridge_scores(
    rows: NDArray[np.float64], numbers: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What a ridge regression without the example says of it (N, K), with a penalty of a tenth of its variance; by the hat matrix."""
    centred = rows - rows.mean(0)
    kernel = centred @ centred.T
    unit = float(np.trace(kernel)) / len(rows)
    if unit <= 0:
        return np.broadcast_to(counts.astype(np.float64), (len(rows), len(counts)))
    values, vectors = np.linalg.eigh(kernel)
    kept = np.maximum(values, 0.0)
    hat = (vectors * (kept / (kept + 0.1 * unit))) @ vectors.T + 1.0 / len(rows)
    targets = np.eye(len(counts))[numbers]
    leverage = np.minimum(np.diag(hat), 1 - 1e-9)[:, None]
    return targets - (targets - hat @ targets) / (1 - leverage)
