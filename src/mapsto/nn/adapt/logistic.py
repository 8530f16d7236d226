"""Logistic regression with an L2 penalty on features, its strength chosen by cross-validation.

``min_W  ½‖W‖² + C Σ_i −log softmax(W z_i + b)[y_i]`` (Fan et al., "LIBLINEAR", 2008; as a few-shot baseline: Tian et al., "Rethinking
Few-Shot Image Classification", 2020).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.cross_validation import Fitted, folds_of, folds_of_groups, log_loss, out_of_fold
from mapsto.nn.adapt.ridge import targets_of

__all__ = ["STRENGTH", "STRENGTHS", "chosen", "fit", "fit_labels", "normalised", "spread_of"]

STRENGTHS: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of C that are tried."""
STRENGTH = 0.1
"""C where nothing can be tried."""
JUDGED = 2000
"""So many examples are enough to choose C."""
_FOLDS = 5
_PRIOR = 10
"""As many examples the common spread weighs; 10 to 200 were as good for EfficientNet-Lite0 on CIFAR-10 with 20 to 1,000 labels."""
_LEAST = 0.1
"""No number of the embedding is enlarged more than tenfold against the typical one, so that int8 can hold the weights."""


def normalised(features: NDArray[Any]) -> NDArray[Any]:
    """Features of length 1, shape (N, D)."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def fit(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    strength: float = 1.0,
    standardize: bool = True,
    weights: NDArray[Any] | None = None,
    iterations: int = 1000,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,).

    Parameters
    ----------
    features
        (N, D), as they come.
    labels
        Class numbers (N,), at least two of them there, or shares of classes (N, K). A class of which there is no example gets a weight of 0
        and a bias below all others'.
    classes
        K.
    strength
        C: the inverse of the penalty; smaller is smoother.
    standardize
        Whether each feature is scaled to mean 0 and, given enough examples, standard deviation 1 first; it is folded into the head.
    weights
        Of the examples, (N,), positive.
    iterations
        At most so many of L-BFGS.

    >>> weight, bias = fit(np.array([[-1.0], [1.0]]), np.array([0, 1]), 2)
    >>> (weight @ np.array([0.0]) + bias).round(3) + 0.0
    array([0., 0.])
    """
    from sklearn.linear_model import LogisticRegression

    features = np.asarray(features, np.float64)
    mean, spread = np.zeros(features.shape[1]), np.ones(features.shape[1])
    if standardize:
        mean, spread = features.mean(0), spread_of(features)
    scaled = (features - mean) / spread
    basis = (
        np.linalg.qr(scaled.T)[0] if len(scaled) < scaled.shape[1] else None
    )  # the weight lies in the span of the examples
    rows, numbers, shares = _expanded(scaled if basis is None else scaled @ basis, labels, classes, weights)
    fitted: Any = LogisticRegression(C=strength, max_iter=iterations)
    with warnings.catch_warnings():  # that there are few examples of a class is said of the data, in our words
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        fitted.fit(rows, numbers, shares)
    weight, bias = np.asarray(fitted.coef_), np.asarray(fitted.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn gives the second's log-odds
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = (weight if basis is None else weight @ basis.T) / spread
    bias = bias - weight @ mean
    if len(weight) == classes:
        return weight, bias
    there = np.asarray(fitted.classes_)
    whole, biases = np.zeros((classes, weight.shape[1])), np.full(classes, bias.min() - 10)
    whole[there], biases[there] = weight, bias
    return whole, biases


def fit_labels(
    features: NDArray[Any],
    labels: NDArray[Any],
    *,
    strength: float = 1.0,
    standardize: bool = True,
    iterations: int = 1000,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,) of K labels (N, K) that stand each by itself; one that all or no examples have keeps those odds."""
    weights: list[NDArray[np.float64]] = []
    biases: list[float] = []
    for column in labels.T.astype(np.int64):
        if len(np.unique(column)) > 1:
            weight, bias = fit(features, column, 2, strength=strength, standardize=standardize, iterations=iterations)
            weights.append(weight[1] - weight[0])
            biases.append(float(bias[1] - bias[0]))
        else:
            weights.append(np.zeros(features.shape[1]))
            biases.append(float(np.log((column.sum() + 0.5) / (len(column) - column.sum() + 0.5))))
    return np.stack(weights), np.array(biases)


def chosen(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    rng: np.random.Generator,
    *,
    standardize: bool = True,
    weights: NDArray[Any] | None = None,
    iterations: int = 1000,
    groups: NDArray[Any] | None = None,
) -> tuple[float, dict[float, float]]:
    """C with the least cross-validated log-loss, and the log-loss of each that was tried, in nats.

    Of more than `JUDGED` examples a part is drawn. Labels are class numbers (N,), or (N, K) of 0 and 1 that stand each by itself. Where no
    class has two examples nothing can be tried: `STRENGTH`, and no losses. With `groups`, numbers (N,) beside class numbers, all of a
    group are in one fold; nothing can be tried where a fold leaves less than two classes.
    """
    if len(labels) > JUDGED:
        drawn = rng.permutation(len(labels))[:JUDGED]
        features, labels = features[drawn], labels[drawn]
        weights = None if weights is None else weights[drawn]
        groups = None if groups is None else groups[drawn]
    most = int(np.bincount(labels).max()) if labels.ndim == 1 else len(labels)
    unlearnt = np.zeros(len(labels), np.bool_)
    if groups is None:
        fold = folds_of(labels, max(2, min(_FOLDS, most)), rng)
    else:
        fold = folds_of_groups(groups, _FOLDS, rng)
        unlearnt = _in_one_fold(labels, fold)
        if any(len(np.unique(labels[fold != each])) < 2 for each in np.unique(fold)):
            return STRENGTH, {}
    if not ((fold >= 0) & ~unlearnt).any():
        return STRENGTH, {}
    losses: dict[float, float] = {}
    for strength in STRENGTHS:

        def fitted(rows: NDArray[Any], index: NDArray[Any], strength: float = strength) -> Fitted:
            if labels.ndim == 2:
                return fit_labels(
                    rows, labels[index], strength=strength, standardize=standardize, iterations=iterations
                )
            own = None if weights is None else weights[index]
            return fit(
                rows,
                labels[index],
                classes,
                strength=strength,
                standardize=standardize,
                weights=own,
                iterations=iterations,
            )

        scores = out_of_fold(fitted, features, np.arange(len(labels)), fold)
        scores[unlearnt] = np.nan
        if labels.ndim == 2:
            losses[strength] = float(np.logaddexp(0, -scores * (2 * labels - 1)).mean())
        else:
            losses[strength] = log_loss(scores, labels, weights)
    return min(losses, key=losses.__getitem__), losses


def _in_one_fold(labels: NDArray[Any], fold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which examples have a class that no other fold has, so that the head which judges them has not learnt it."""
    found = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        own = labels == label
        found[own] = len(np.unique(fold[own])) < 2
    return found


def spread_of(features: NDArray[Any]) -> NDArray[np.float64]:
    """What each feature is divided by, shape (D,), from features (n, D): its own spread, shrunk towards the common one.

    A number that happens to be the same in five photos would else be divided by nothing, and one huge weight drown the others, in int8
    altogether (Schäfer and Strimmer, "A Shrinkage Approach to Large-Scale Covariance Matrix Estimation", 2005).

    >>> few = np.array([[0.0, 0.0, 2.0], [0.0, 4.0, 0.0]])
    >>> spread_of(few).round(2), spread_of(np.tile(few, (500, 1))).round(2)
    (array([1.18, 1.43, 1.25]), array([0.13, 1.99, 1.  ]))
    """
    own = features.var(0)
    common = float(own.mean())
    if common == 0:
        return np.ones_like(own)
    shrunk = (len(features) * own + _PRIOR * common) / (len(features) + _PRIOR)
    return np.sqrt(np.maximum(shrunk, _LEAST**2 * common))


def _expanded(
    rows: NDArray[np.float64], labels: NDArray[Any], classes: int, weights: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64] | None]:
    """Rows, class numbers and weights: an example of several classes stands once for each, by its share."""
    if labels.ndim == 1:
        return rows, labels, None if weights is None else np.asarray(weights, np.float64)
    shares = targets_of(labels, classes) * (1.0 if weights is None else np.asarray(weights)[:, None])
    index, number = np.nonzero(shares > 1e-3)
    return rows[index], number, shares[index, number]
