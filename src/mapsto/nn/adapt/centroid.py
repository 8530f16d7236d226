"""Nearest class mean as a linear head on features.

``score_k(z) = s (2 c_k · z − ‖c_k‖²)`` ranks as ``−s ‖z − c_k‖²`` does (Snell, Swersky and Zemel, "Prototypical Networks for Few-shot
Learning", 2017); by angles ``s c_k · z`` with means of length 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt import cross_validation
from mapsto.nn.adapt.logistic import normalised
from mapsto.nn.adapt.ridge import targets_of

__all__ = ["fit", "fit_centred", "likeliest_scale"]


def fit(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    cosine: bool = False,
    scale: float | None = None,
    weights: NDArray[Any] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,).

    Parameters
    ----------
    features, labels, classes
        (N, D); class numbers (N,) or shares (N, K), something of each class; K.
    cosine
        Whether means of features of length 1 are compared by angle; for features whose length says nothing.
    scale
        None: what makes held-out examples, each in turn, likeliest; with one example a class 10 over the mean squared distance.
    weights
        Of the examples, (N,).

    >>> weight, bias = fit(np.array([[0.0], [2.0]]), np.array([0, 1]), 2, scale=1.0)
    >>> (np.array([[0.5]]) @ weight.T + bias).tolist()
    [[0.0, -2.0]]
    """
    features = np.asarray(features, np.float64)
    length = float(np.linalg.norm(features, axis=1).mean()) or 1.0
    used = normalised(features) if cosine else features
    shares = targets_of(labels, classes) * (1.0 if weights is None else np.asarray(weights)[:, None])
    means = shares.T @ used / np.maximum(shares.sum(0), 1e-12)[:, None]
    if cosine:
        means = normalised(means)
    if scale is None:
        scale = likeliest_scale(used, labels, classes, cosine=cosine)
    if cosine:
        return 2 * scale * means / length, np.zeros(classes)
    return 2 * scale * means, -scale * np.square(means).sum(1)


def fit_centred(
    features: NDArray[Any], labels: NDArray[Any], classes: int, *, scale: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `fit` by angles, seen from the mean of all examples: what all of them have in common says nothing of a class.

    Features are made of length 1 first; the head is for features as they come, of the examples' mean length (as in Wang et al.,
    "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning", 2019).

    >>> rows = np.array([[10.0, 1.0], [10.0, 2.0]])
    >>> weight, bias = fit_centred(rows, np.array([0, 1]), 2)
    >>> (rows @ weight.T + bias).argmax(1)
    array([0, 1])
    """
    features = np.asarray(features, np.float64)
    length = float(np.linalg.norm(features, axis=1).mean()) or 1.0
    units = normalised(features)
    centre = units.mean(0)
    weight, bias = fit(units - centre, labels, classes, cosine=True, scale=scale)
    return weight / length, bias - weight @ centre


def likeliest_scale(features: NDArray[Any], labels: NDArray[Any], classes: int, *, cosine: bool) -> float:
    """The scale with the best likelihood of each example against the means of the others: of 61, twelve a decade."""
    scores = _left_out(features, labels, classes, cosine=cosine)
    judged = np.bincount(labels)[labels] > 1 if labels.ndim == 1 else np.zeros(len(labels), np.bool_)
    typical = float(np.abs(scores).mean()) or 1.0
    if not judged.any():
        return 10 / typical
    scales = [10 ** (step / 12) / typical for step in range(-12, 49)]
    return cross_validation.likeliest_scale(scores[judged], labels[judged], scales)


def _left_out(features: NDArray[Any], labels: NDArray[Any], classes: int, *, cosine: bool) -> NDArray[np.float64]:
    """Minus the squared distances (N, K) of each example to the means of the others; its own class's mean with it where it is alone."""
    shares = targets_of(labels, classes)
    sums, counts = shares.T @ features, shares.sum(0)
    whole = _mean(sums, counts[:, None], cosine=cosine)
    found = np.empty((len(features), classes))
    for i, row in enumerate(features):
        found[i] = -np.square(row - whole).sum(1)
        own = np.flatnonzero(shares[i])
        own = own[counts[own] - shares[i, own] > 1e-9]
        share = shares[i, own][:, None]
        means = _mean(sums[own] - share * row, counts[own][:, None] - share, cosine=cosine)
        found[i, own] = -np.square(row - means).sum(1)
    return found


def _mean(sums: NDArray[Any], counts: NDArray[Any], *, cosine: bool) -> NDArray[Any]:
    means = sums / np.maximum(counts, 1e-12)
    return normalised(means) if cosine else means
