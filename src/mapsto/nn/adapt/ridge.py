"""Ridge regression on features in closed form, its penalty and the scale of its scores chosen by leaving out each example in turn.

``min_W,b  Σ_i w_i ‖W z_i + b − y_i‖² + λ ‖W‖²`` with y_i the class as a one-hot vector, shares of classes, or numbers. What the fit
without example i says of it needs no second fit: ``y_i − ŷ_i⁽⁻ⁱ⁾ = (y_i − ŷ_i) / (1 − h_ii)`` with h the hat matrix (Allen, "The
Relationship between Variable Selection and Data Augmentation and a Method for Prediction", 1974; Golub, Heath and Wahba,
"Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", 1979).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.cross_validation import likeliest_scale, likeliest_scales, log_losses

__all__ = [
    "PENALTIES",
    "PENALTY",
    "SCALE",
    "RidgeFit",
    "fit",
    "fit_rooted",
    "fitted",
    "fitted_labels",
    "fitted_values",
    "rooted",
    "targets_of",
    "unit_of",
]

PENALTIES: tuple[float, ...] = tuple(10.0 ** (power / 4) for power in range(-12, 9))
"""Those that are tried, in units of the mean squared length of a centred feature vector."""
PENALTY = 1.0
"""The penalty that others have to beat: the best one for 2 to 20 labels of a class, and as good as any for 1, on classes of CIFAR-100."""
SCALE = 20.0
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
    losses: NDArray[np.float64]
    """Of each left-out example that can be judged: the log-loss of classes or labels, the squared error of numbers in units of their
    variance. Empty where none can: all that are not alone in their class."""


def rooted(features: NDArray[Any]) -> NDArray[Any]:
    """The signed square root of each feature, ``x / √(|x| + 1e-6)``: rare large features weigh less, as the head `root_head` takes it.

    >>> rooted(np.array([4.0, 0.0, -9.0])).round(3)
    array([ 2.,  0., -3.])
    """
    return features / np.sqrt(np.abs(features) + features.dtype.type(_LEAST))


def targets_of(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Class numbers (N,) as one-hot rows (N, classes); shares or numbers (N, K) as they are."""
    return np.eye(classes)[labels] if labels.ndim == 1 else np.asarray(labels, np.float64)


def unit_of(features: NDArray[Any]) -> float:
    """The mean squared length of a centred feature vector: what penalties are in units of.

    >>> unit_of(np.array([[1.0, 0.0], [3.0, 0.0]]))
    1.0
    """
    return float(np.square(features - features.mean(0)).sum() / len(features)) or 1.0


def fit(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    penalty: float | None = None,
    weights: NDArray[Any] | None = None,
    scale: float | None = None,
    normalise: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,) whose softmax of scores is a probability; the arguments are those of `fitted`.

    >>> weight, bias = fit(np.array([[-1.0], [1.0]]), np.array([0, 1]), 2, penalty=1e-9, scale=1.0)
    >>> (weight.round(3) + 0.0).tolist(), bias.round(3).tolist()
    ([[-0.5], [0.5]], [0.5, 0.5])
    """
    found = fitted(features, labels, classes, penalty=penalty, weights=weights, scale=scale, normalise=normalise)
    return found.weight, found.bias


def fit_rooted(
    features: NDArray[Any], labels: NDArray[Any], classes: int, *, weights: NDArray[Any] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (K, D) and bias (K,) over the root of the features, as `adapt.ridge` fits them: the strongest head for few labels."""
    return fit(rooted(features), labels, classes, weights=weights, normalise=True)


def fitted(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: int,
    *,
    penalty: float | None = None,
    weights: NDArray[Any] | None = None,
    scale: float | None = None,
    normalise: bool = False,
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
        λ in units of the mean squared length of a centred feature vector. None: the one nearest to `PENALTY` whose log-loss on left-out
        examples is within one standard error of the least (Breiman et al., "Classification and Regression Trees", 1984).
    weights
        Of the examples, (N,), positive; only their proportions matter.
    scale
        None: the one with the least log-loss on left-out examples, for each penalty (Guo et al., "On Calibration of Modern Neural
        Networks", 2017).
    normalise
        Whether the regression sees features of length 1. The head is for features as they come, of the examples' mean length.
    """
    features, length = _lengths(np.asarray(features, np.float64), normalise)
    solver = _Solver(features, targets_of(labels, classes), weights)
    judged = _judged(labels)
    scales: dict[float, float] = {}
    tables: dict[float, NDArray[np.float64]] = {}
    if scale is None and penalty is None and labels.ndim == 1 and judged.any():
        tables = {each: solver.left_out(each)[judged] for each in PENALTIES}
        found = likeliest_scales(np.stack(list(tables.values())), labels[judged], _SCALES)
        scales = dict(zip(tables, found, strict=True))

    def losses(penalty: float) -> NDArray[np.float64]:
        answers = tables[penalty] if penalty in tables else solver.left_out(penalty)[judged]
        if penalty not in scales:
            scales[penalty] = likeliest_scale(answers, labels[judged], _SCALES) if scale is None else scale
        return log_losses(scales[penalty] * answers, labels[judged])

    found = _chosen(solver, losses if judged.any() else None, penalty)
    taken = scales.get(found.penalty, SCALE if scale is None else scale)
    return _scaled(found, taken, length)


def fitted_labels(
    features: NDArray[Any], labels: NDArray[Any], *, penalty: float | None = None, normalise: bool = False
) -> RidgeFit:
    """Of labels (N, K) of 0 and 1 that stand each by itself: the sigmoid of a score is a probability."""
    features, length = _lengths(np.asarray(features, np.float64), normalise)
    targets = 2 * np.asarray(labels, np.float64) - 1
    solver = _Solver(features, targets, None)
    scales: dict[float, float] = {}

    def losses(penalty: float) -> NDArray[np.float64]:
        margins = solver.left_out(penalty) * targets
        if penalty not in scales:
            scales[penalty] = min(_SCALES, key=lambda each: float(np.logaddexp(0, -each * margins).mean()))
        return np.logaddexp(0, -scales[penalty] * margins).mean(1)

    found = _chosen(solver, losses if len(targets) > 2 else None, penalty)
    return _scaled(found, scales.get(found.penalty, SCALE / 2), length)


def fitted_values(
    features: NDArray[Any], targets: NDArray[Any], *, penalty: float | None = None, normalise: bool = False
) -> RidgeFit:
    """Of numbers (N, K), each in its own unit."""
    features, length = _lengths(np.asarray(features, np.float64), normalise)
    targets = np.asarray(targets, np.float64)
    mean, spread = targets.mean(0), targets.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    aims = (targets - mean) / spread
    solver = _Solver(features, aims, None)

    def losses(penalty: float) -> NDArray[np.float64]:
        return np.square(solver.left_out(penalty) - aims).mean(1)

    found = _chosen(solver, losses if len(targets) > 2 else None, penalty)
    return found._replace(
        weight=found.weight * spread[:, None] / length,
        bias=found.bias * spread + mean,
        left_out=found.left_out * spread + mean,
    )


def _lengths(features: NDArray[np.float64], normalise: bool) -> tuple[NDArray[np.float64], float]:
    """The features that the regression sees, and what its weight is divided by."""
    if not normalise:
        return features, 1.0
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return features / lengths, float(lengths.mean())


def _chosen(solver: _Solver, losses: Callable[[float], NDArray[np.float64]] | None, penalty: float | None) -> RidgeFit:
    """The fit with the penalty, by default the chosen one, with answers as the regression gives them."""
    if penalty is None:
        penalty = PENALTY if losses is None else _nearest_to_usual({each: losses(each) for each in PENALTIES})
    weight, bias = solver.head(penalty)
    each = losses(penalty) if losses is not None else np.zeros(0)
    return RidgeFit(weight, bias, penalty, 1.0, solver.left_out(penalty), each)


def _nearest_to_usual(losses: dict[float, NDArray[np.float64]]) -> float:
    """The penalty nearest to the usual one whose mean loss is at most one standard error of the difference above the least."""
    best = losses[min(losses, key=lambda each: float(losses[each].mean()))]
    apart = {each: own - best for each, own in losses.items()}
    error = {each: float(own.std(ddof=1)) / len(own) ** 0.5 if len(own) > 1 else 0.0 for each, own in apart.items()}
    good = [each for each, own in apart.items() if float(own.mean()) <= error[each]]
    return min(good, key=lambda each: abs(np.log(each / PENALTY)))


def _scaled(found: RidgeFit, scale: float, length: float) -> RidgeFit:
    return found._replace(
        weight=found.weight * scale / length, bias=found.bias * scale, left_out=found.left_out * scale, scale=scale
    )


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

    def head(self, penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (K, D) and bias (K,)."""
        shrunk = self._values / (np.square(self._values) + penalty * self._unit)
        weight = (shrunk[:, None] * self._coordinates).T @ self._right
        return weight, self._means[1] - weight @ self._means[0]

    def left_out(self, penalty: float) -> NDArray[np.float64]:
        """The answers (N, K) for each example by the fit without it."""
        squares = np.square(self._values)
        kept = squares / (squares + penalty * self._unit)
        answers = self._left_vectors @ (kept[:, None] * self._coordinates)
        leverage = np.square(self._left_vectors) @ kept + self._shares
        residuals = (self._left - answers) / self._root
        return self._targets - residuals / np.maximum(1 - leverage, 1e-9)[:, None]


def _judged(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which examples say something when they are left out: of a class of one example no other is learnt from."""
    if labels.ndim == 2:
        return np.full(len(labels), len(labels) > 2)
    return np.bincount(labels)[labels] > 1
