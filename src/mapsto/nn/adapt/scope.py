"""What is out of scope: how like an input is to the nearest class mean, and from where on it is of none of the classes.

``likeness(z) = max_k cos(z, c_k)``, c_k the mean of the examples of class k (Mensink et al., "Distance-Based Image Classification", 2013;
Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", 2019). On sentence embeddings it told more
than the highest probability, the energy (Liu et al., "Energy-Based Out-of-Distribution Detection", 2020) or the nearest examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scope", "auroc", "calibrated", "left_out_likeness", "likeness", "means_of"]

_SURE = math.log(19)
"""Log-odds at 95 %."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where the scope ends."""

    threshold: float
    """Least cosine with the nearest mean of what is within."""
    steepness: float
    """Logits for a difference of 1 in cosine."""
    kept: float
    """Share of the examples within, each left out in turn, that stay within."""
    refused: float | None
    """Share of the examples out of scope that are told so; None without any."""
    auroc: float | None
    """How well likeness tells the two apart: the chance that an example within has more of it; None without examples out of scope."""


def means_of(features: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """The mean of each class at length 1, shape (K, D)."""
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, np.asarray(features, np.float64))
    return _unit(sums)


def likeness(features: NDArray[Any], means: NDArray[Any]) -> NDArray[np.float64]:
    """The cosine of features (N, D) with the nearest of means (K, D), shape (N,)."""
    return (_unit(np.asarray(features, np.float64)) @ means.T).max(1)


def left_out_likeness(features: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """The same of the examples themselves, each without its share in the mean of its class; NaN for the only example of a class.

    >>> left_out_likeness(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 0, 1]), 2).tolist()
    [1.0, 1.0, nan]
    """
    rows = np.asarray(features, np.float64)
    sums = np.zeros((classes, rows.shape[1]))
    np.add.at(sums, labels, rows)
    found = _unit(rows) @ _unit(sums).T
    found[np.arange(len(rows)), labels] = (_unit(rows) * _unit(sums[labels] - rows)).sum(1)
    nearest = found.max(1)
    nearest[np.bincount(labels, minlength=classes)[labels] < 2] = np.nan
    return nearest


def calibrated(within: NDArray[Any], outside: NDArray[Any] | None, keep: float) -> Scope:
    """Where the scope ends, from likenesses of left-out examples within it (N,) and of examples out of it (M,).

    Without the latter `keep` of the former stay within; with them both are told apart as often as can be, each kind counting as much as the
    other, but no fewer than 2 `keep` − 1 stay within.

    >>> found = calibrated(np.array([0.6, 0.7, 0.8, 0.9]), np.array([0.1, 0.2]), 0.95)
    >>> round(found.threshold, 2), found.kept, found.refused, found.auroc
    (0.4, 1.0, 1.0, 1.0)
    """
    threshold = float(np.quantile(within, 1 - keep))
    refused = area = None
    if outside is not None and len(outside):
        known = np.unique(np.concatenate([within, outside]))
        tried = np.concatenate([(known[1:] + known[:-1]) / 2, [threshold]])
        tried = tried[tried <= np.quantile(within, min(2 * (1 - keep), 1.0))]
        both = [(within >= each).mean() + (outside < each).mean() for each in tried]
        threshold = float(tried[int(np.argmax(both))])
        refused, area = float((outside < threshold).mean()), auroc(within, outside)
    middle = float(np.median(within))
    steepness = _SURE / max(middle - threshold, 1e-3)
    kept = float((within >= threshold).mean())
    return Scope(threshold=threshold, steepness=steepness, kept=kept, refused=refused, auroc=area)


def auroc(within: NDArray[Any], outside: NDArray[Any]) -> float:
    """The chance that one of `within` (N,) is above one of `outside` (M,), ties counting half.

    >>> auroc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(outside)
    below, upto = np.searchsorted(ordered, within, "left"), np.searchsorted(ordered, within, "right")
    return float((below + upto).mean() / 2 / len(outside))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
