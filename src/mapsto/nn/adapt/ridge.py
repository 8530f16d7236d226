"""Ridge regression on features in closed form, its penalty and the scale of its scores chosen by leaving out each example in turn.

``min_W,b  Σ_i w_i ‖W z_i + b − y_i‖² + λ ‖W‖²`` with y_i the class as a one-hot vector, shares of classes, or numbers. What the fit
without example i says of it needs no second fit: ``y_i − ŷ_i⁽⁻ⁱ⁾ = (y_i − ŷ_i) / (1 − h_ii)`` with h the hat matrix (Allen, "The
Relationship between Variable Selection and Data Augmentation and a Method for Prediction", 1974; Golub, Heath and Wahba,
"Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", 1979).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.cross_validation import log_losses

__all__ = ["PENALTIES", "PENALTY", "SCALE", "RidgeFit", "fit", "fitted", "rooted", "targets_of"]

PENALTIES: tuple[float, ...] = tuple(10.0 ** (power / 4) for power in range(-12, 9))
"""Those that are tried, in units of the mean squared length of a centred feature vector."""
PENALTY = 0.1
"""The penalty where nothing can be left out, as with one example of a class; in the same unit."""
SCALE = 10.0
"""What scores are multiplied by where nothing can be left out."""
_SCALES: tuple[float, ...] = tuple(10.0 ** (step / 12) for step in range(-6, 31))
_LEAST = 1e-6


class RidgeFit(NamedTuple):
    """A linear head and how it was chosen."""

    weight: NDArray[np.float64]
    """(K, D)."""
    bias: NDArray[np.float64]
    """(K,)."""
    penalty: float
    """In units of the mean squared length of a centred feature vector."""
    scale: float
    """What the regression's answers, about 0 to 1, were multiplied by, so that their softmax is a probability; 1 for numbers."""
    left_out: NDArray[np.float64]
    """Scores (N, K) of each example by the fit without it, times `scale`."""


def rooted(features: NDArray[Any]) -> NDArray[Any]:
    """The signed square root of each feature, ``x / √(|x| + 1e-6)``: rare large features weigh less, as the head `root_head` takes it.

    >>> rooted(np.array([4.0, 0.0, -9.0])).round(3)
    array([ 2.,  0., -3.])
    """
    return features / np.sqrt(np.abs(features) + features.dtype.type(_LEAST))


def targets_of(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Class numbers (N,) as one-hot rows (N, classes); shares or numbers (N, K) as they are."""
    return np.eye(classes)[labels] if labels.ndim == 1 else np.asarray(labels, np.float64)


def fit(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    penalty: float | None = None,
    weights: NDArray[Any] | None = None,
    scale: float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,) whose softmax of scores is a probability; the arguments are those of `fitted`.

    >>> weight, bias = fit(np.array([[-1.0], [1.0]]), np.array([0, 1]), 2, penalty=1e-9, scale=1.0)
    >>> (weight.round(3) + 0.0).tolist(), bias.round(3).tolist()
    ([[-0.5], [0.5]], [0.5, 0.5])
    """
    found = fitted(features, labels, classes, penalty=penalty, weights=weights, scale=scale)
    return found.weight, found.bias


def fitted(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    penalty: float | None = None,
    weights: NDArray[Any] | None = None,
    scale: float | None = None,
) -> RidgeFit:
    """The head, with what was chosen.

    Parameters
    ----------
    features
        (N, D), as they come; see `rooted`.
    labels
        Class numbers (N,), or shares of classes (N, K), soft where they are not sure.
    classes
        K.
    penalty
        λ in units of the mean squared length of a centred feature vector. None: the one of `PENALTIES` with the least squared error
        on left-out examples.
    weights
        Of the examples, (N,), positive; only their proportions matter.
    scale
        None: the one with the least log-loss on left-out examples. 1 for a regression on numbers.
    """
    solver = _Solver(np.asarray(features, np.float64), targets_of(labels, classes), weights)
    judged = _judged(labels)
    if penalty is None:
        penalty = _least(solver, judged)
    weight, bias, left_out = solver.solved(penalty)
    if scale is None:
        scale = _likeliest(left_out[judged], labels[judged]) if judged.any() else SCALE
    return RidgeFit(weight * scale, bias * scale, penalty, scale, left_out * scale)


class _Solver:
    """The regression for any penalty, by one eigendecomposition of the smaller of both systems."""

    def __init__(
        self, features: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[Any] | None
    ) -> None:
        shares = np.full(len(features), 1 / len(features)) if weights is None else weights / weights.sum()
        self._shares = shares
        self._means = shares @ features, shares @ targets
        self._root = np.sqrt(shares * len(features))[:, None]
        self._features = (features - self._means[0]) * self._root
        self._targets = targets
        self._left = (targets - self._means[1]) * self._root
        self._unit = float(np.square(self._features).sum() / len(features)) or 1.0
        left, values, right = np.linalg.svd(self._features, full_matrices=False)
        self._left_vectors, self._values, self._right = left, values, right
        self._coordinates = left.T @ self._left

    def solved(self, penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Weight (K, D), bias (K,) and the left-out answers (N, K)."""
        squares = np.square(self._values)
        shrunk = squares + penalty * self._unit
        weight = ((self._values / shrunk)[:, None] * self._coordinates).T @ self._right
        answers = self._left_vectors @ ((squares / shrunk)[:, None] * self._coordinates)
        leverage = (np.square(self._left_vectors) * (squares / shrunk)).sum(1) + self._shares
        residuals = (self._left - answers) / self._root
        left_out = self._targets - residuals / np.maximum(1 - leverage, 1e-9)[:, None]
        return weight, self._means[1] - weight @ self._means[0], left_out

    def error(self, penalty: float, judged: NDArray[np.bool_]) -> float:
        """The weighted mean squared error of the left-out answers."""
        apart = np.square(self.solved(penalty)[2] - self._targets).sum(1)
        return float(np.average(apart[judged], weights=self._shares[judged]))


def _judged(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which examples say something when they are left out: of a class of one example no other is learnt from."""
    if labels.ndim == 2:
        return np.full(len(labels), len(labels) > 2)
    return np.bincount(labels)[labels] > 1


def _least(solver: _Solver, judged: NDArray[np.bool_]) -> float:
    if not judged.any():
        return PENALTY
    errors = [solver.error(penalty, judged) for penalty in PENALTIES]
    return PENALTIES[int(np.argmin(errors))]


def _likeliest(answers: NDArray[np.float64], labels: NDArray[Any]) -> float:
    losses = [float(log_losses(scale * answers, labels).mean()) for scale in _SCALES]
    return _SCALES[int(np.argmin(losses))]
