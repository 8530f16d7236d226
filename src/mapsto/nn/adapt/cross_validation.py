"""Cross-validation on features: every example is scored by a head that was fitted without it.

Each class is dealt out over the folds evenly (Kohavi, "A Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model
Selection", 1995); a class of one example is always learnt from and never judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENOUGH",
    "Fit",
    "Fitted",
    "Scorer",
    "accuracy",
    "folds_of",
    "folds_of_groups",
    "likeliest_scale",
    "likeliest_scales",
    "log_losses",
    "log_loss",
    "out_of_fold",
    "scored",
]

Floats: TypeAlias = NDArray[np.float64]
Scorer: TypeAlias = Callable[[NDArray[Any]], Floats]
"""Features (N, D) → scores (N, K)."""
Fitted: TypeAlias = "tuple[NDArray[Any], NDArray[Any]] | Scorer"
"""A linear head, weight (K, D) and bias (K,), or a function from features to scores."""
Fit: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], Fitted]
"""Features (N, D) and labels → a head."""
ENOUGH = 200_000
"""So many scores, examples times classes, are enough to choose their scale: with 1,000 classes 200 examples."""


def folds_of(labels: NDArray[Any], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each example, 0 to `folds` − 1, shape (N,); −1 for the only example of its class.

    Parameters
    ----------
    labels
        Class numbers (N,), each class spread evenly; targets (N, K), which are dealt out as they come, all alike.
    folds
        How many, 2 or more; the first folds get one more of a class where it does not go up.

    >>> folds_of(np.array([0, 0, 0, 0, 1, 1, 2]), 2, np.random.default_rng(0)).tolist()
    [1, 0, 0, 1, 1, 0, -1]
    """
    strata = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    found = np.full(len(strata), -1, np.int64)
    place = 0
    for label in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == label))
        if len(members) > 1:  # goes on where the class before ended, so that the folds are of one size
            found[members] = (place + np.arange(len(members))) % folds
            place += len(members)
    return found


def folds_of_groups(groups: NDArray[Any], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each example, 0 to `folds` − 1, shape (N,): all of a group, as the words of a sentence, are in one.

    `groups` are numbers (N,).

    >>> folds_of_groups(np.array([5, 5, 7, 7, 9]), 2, np.random.default_rng(0)).tolist()
    [0, 0, 0, 0, 1]
    """
    there, place = np.unique(groups, return_inverse=True)
    return rng.permutation(np.arange(len(there)) % folds)[place]


def out_of_fold(fit: Fit, features: NDArray[Any], labels: NDArray[Any], folds: NDArray[np.int64]) -> Floats:
    """Scores (N, K) of each example by the head that was fitted to the other folds; NaN where its fold is −1.

    >>> from mapsto.nn.adapt import ridge
    >>> rows, labels = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    >>> scores = out_of_fold(lambda x, y: ridge.fit(x, y, 2), rows, labels, np.array([0, 1, 0, 1]))
    >>> scores.argmax(1).tolist()
    [0, 0, 1, 1]
    """
    found: Floats | None = None
    for fold in range(int(folds.max()) + 1):
        judged = folds == fold
        if not judged.any():
            continue
        scores = scored(fit(features[~judged], labels[~judged]), features[judged])
        if found is None:
            found = np.full((len(features), scores.shape[1]), np.nan)
        found[judged] = scores
    return np.full((len(features), 0), np.nan) if found is None else found


def scored(head: Fitted, features: NDArray[Any]) -> Floats:
    """A head's scores (N, K) of features (N, D)."""
    if callable(head):
        return head(features)
    weight, bias = head
    return np.asarray(features, np.float64) @ weight.T + bias


def log_loss(scores: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """The mean −log softmax(scores)[label] in nats, of the examples that have scores; NaN where none has.

    Labels are class numbers (N,) or shares (N, K), `weights` those of the examples (N,).

    >>> round(log_loss(np.array([[0.0, 0.0], [np.nan, np.nan]]), np.array([1, 0])), 4)
    0.6931
    """
    each = log_losses(scores, labels)
    judged = np.isfinite(each)
    own = None if weights is None else weights[judged]
    return float(np.average(each[judged], weights=own)) if judged.any() else float("nan")


def log_losses(scores: NDArray[Any], labels: NDArray[Any]) -> Floats:
    """−log softmax(scores)[label] of each example, shape (N,); NaN without scores."""
    if not scores.shape[1]:
        return np.full(len(scores), np.nan)
    shifted = scores - scores.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    if labels.ndim == 1:
        return -logs[np.arange(len(labels)), labels]
    return -(logs * labels).sum(1)


def likeliest_scale(scores: NDArray[Any], labels: NDArray[Any], scales: Sequence[float]) -> float:
    """Of rising `scales` the one by which scores (N, K) are to be multiplied, so that their softmax is the likeliest for the labels.

    The loss is convex in the scale, so that halving finds the least one. Of more than `ENOUGH` scores a part of the examples is drawn.

    >>> scores = np.array([[10.0, 0.0], [10.0, 0.0], [10.0, 0.0], [10.0, 0.0]])
    >>> likeliest_scale(scores, np.array([0, 0, 0, 1]), (0.1, 1.0))
    0.1
    """
    if scores.size > ENOUGH:
        drawn = np.random.default_rng(0).permutation(len(scores))[: max(ENOUGH // scores.shape[1], 1)]
        scores, labels = scores[drawn], labels[drawn]
    low, high = 0, len(scales) - 1
    while low < high:
        middle = (low + high) // 2
        here, further = (float(log_losses(scales[place] * scores, labels).mean()) for place in (middle, middle + 1))
        low, high = (middle + 1, high) if here > further else (low, middle)
    return scales[low]


def likeliest_scales(tables: NDArray[Any], labels: NDArray[Any], scales: Sequence[float]) -> list[float]:
    """`likeliest_scale` of each of several tables (P, N, K) of scores for the same class numbers (N,), in few calls."""
    count, rows, classes = tables.shape
    if tables.size > ENOUGH:
        return [likeliest_scale(table, labels, scales) for table in tables]
    known, twice = np.array(scales), np.tile(labels, 2 * count)
    low, high = np.zeros(count, int), np.full(count, len(scales) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        tried = known[[middle, np.minimum(middle + 1, len(scales) - 1)]]
        scaled = tried[:, :, None, None] * tables
        here, further = log_losses(scaled.reshape(-1, classes), twice).reshape(2, count, rows).mean(2)
        rises, open_ = here > further, low < high
        low, high = np.where(open_ & rises, middle + 1, low), np.where(open_ & ~rises, middle, high)
    return known[low].tolist()


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of examples with scores whose class (N,) has the highest one; NaN where none has scores."""
    judged = np.isfinite(scores).all(1) if scores.shape[1] else np.zeros(len(scores), np.bool_)
    return float((scores[judged].argmax(1) == labels[judged]).mean()) if judged.any() else float("nan")
