"""Multinomial logistic regression over rising strengths, each fit begun from the one before: for many classes on one core.

``min_W  ½‖W‖² + C Σ_i w_i −log softmax(W z_i + b)[y_i]`` (Fan et al., "LIBLINEAR", 2008) by L-BFGS (Liu and Nocedal, "On the Limited Memory
BFGS Method for Large Scale Optimization", 1989) along the principal axes of the features, each in the unit of the loss's curvature there:
what is curved alike in all directions takes a third of the steps. The features are not standardised: an embedding's directions of little
spread say little. They are taken in units of their mean length, so that a C means the same for every encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.cross_validation import folds_of, likeliest_scale, log_losses

__all__ = ["STRENGTH", "STRENGTHS", "Chosen", "Fitted", "chosen", "fit", "path"]

STRENGTHS: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Values of C that are tried, for features of length 1."""
STRENGTH = 30.0
"""C where nothing can be tried: with one to ten labels of the 77 classes of Banking77 as good as any, on texts of its training part."""
_CURVATURE = 0.3
"""Of the loss, in units of that at equal shares: the better the fit, the flatter it is. Decides only how many steps are taken."""
_ENOUGH = 1e-6
"""It has converged once a step lowers the objective by less than this share of it."""
_STEPS, _MEMORY = 300, 12
_MANY, _VERY_MANY = 50_000, 500_000
"""Examples times classes, from which on three folds choose C, and one: a fifth of at most `_JUDGED` examples."""
_JUDGED = 6000
_SCALES: tuple[float, ...] = tuple(10.0 ** (step / 12) for step in range(-12, 37))

_Objective = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]


class Fitted(NamedTuple):
    """A linear head for features as they come."""

    weight: NDArray[np.float64]
    """(K, D)."""
    bias: NDArray[np.float64]
    """(K,)."""


class Chosen(NamedTuple):
    """A strength and how it was chosen."""

    strength: float
    """C."""
    scale: float
    """What scores are multiplied by, so that their softmax is a probability: a small C tells classes apart well and is sure of nothing."""
    losses: dict[float, float]
    """C → log-loss of held-out examples at its best scale, in nats; empty where none can be held out."""


def fit(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    *,
    strength: float = STRENGTH,
    weights: NDArray[Any] | None = None,
) -> Fitted:
    """The head for one C; the other arguments are those of `path`.

    >>> weight, bias = fit(np.array([[-1.0], [1.0]]), np.array([0, 1]), 2)
    >>> (weight @ np.array([0.0]) + bias).round(3) + 0.0
    array([0., 0.])
    """
    return path(features, labels, classes, (strength,), weights=weights)[0]


def path(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    *,
    weights: NDArray[Any] | None = None,
) -> list[Fitted]:
    """The head for each of rising `strengths`.

    Parameters
    ----------
    features
        (N, D), as they come.
    labels
        Class numbers (N,). A class of which there is no example gets the bias of a very rare one.
    classes
        K.
    strengths
        Values of C, for features of length 1.
    weights
        Of the examples, (N,), positive.
    """
    shares = np.ones(len(features)) if weights is None else np.asarray(weights, np.float64)
    rows = np.asarray(features, np.float64)
    unit = float(np.linalg.norm(rows, axis=1).mean()) or 1.0
    rows = rows / unit
    mean = shares @ rows / shares.sum()
    axes, spreads = _principal_axes((rows - mean) * np.sqrt(shares)[:, None])
    problem = _Problem((rows - mean) @ axes, labels, classes, shares, spreads)
    found: list[Fitted] = []
    inner = problem.beginning()
    for strength in strengths:
        inner = problem.solved(inner, strength)
        weight = inner[:-1].T @ axes.T
        found.append(Fitted(weight / unit, inner[-1] - weight @ mean))
    return found


def chosen(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    rng: np.random.Generator,
    *,
    weights: NDArray[Any] | None = None,
    given: int = 0,
) -> Chosen:
    """C by the log-loss of held-out examples, each C at the scale that is likeliest for it (Guo et al., "On Calibration of Modern Neural
    Networks", 2017): the one nearest to `STRENGTH` within one standard error of the least; `STRENGTH` where none can be held out.

    The last `given` examples are always learnt from and never judged.
    """
    own = len(labels) - given
    if own * classes > _VERY_MANY:
        drawn = np.sort(rng.permutation(own)[:_JUDGED])
        fold, last = folds_of(labels[drawn], 5, rng), 1
    else:
        drawn = np.arange(own)
        most = int(np.bincount(labels[:own]).max(initial=0))
        last = max(2, min(3 if own * classes > _MANY else 5, most))
        fold = folds_of(labels[:own], last, rng)
    scores: list[NDArray[np.float64]] = []
    judged: list[NDArray[np.int64]] = []
    for number in range(last if (fold >= 0).any() else 0):
        held = drawn[fold == number]
        known = np.concatenate([drawn[fold != number], np.arange(own, len(labels))])
        shares = None if weights is None else weights[known]
        heads = path(features[known], labels[known], classes, weights=shares)
        scores.append(np.stack([np.asarray(features[held], np.float64) @ head.weight.T + head.bias for head in heads]))
        judged.append(labels[held])
    if not scores:
        return Chosen(STRENGTH, 1.0, {})
    asked = np.concatenate(judged)
    tables = dict(zip(STRENGTHS, np.concatenate(scores, axis=1), strict=True))
    scales = {strength: likeliest_scale(table, asked, _SCALES) for strength, table in tables.items()}
    losses = {strength: log_losses(scales[strength] * table, asked) for strength, table in tables.items()}
    best = _nearest_to_usual(losses)
    return Chosen(best, scales[best], {strength: float(each.mean()) for strength, each in losses.items()})


def _nearest_to_usual(losses: dict[float, NDArray[np.float64]]) -> float:
    """The C nearest to the usual one whose mean loss is at most one standard error of the difference above the least."""
    least = losses[min(losses, key=lambda each: float(losses[each].mean()))]
    good = [
        strength
        for strength, each in losses.items()
        if float((each - least).mean()) <= float((each - least).std()) / len(each) ** 0.5
    ]
    return min(good, key=lambda each: abs(np.log(each / STRENGTH)))


def _principal_axes(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axes (D, R) of what the rows span, and the sum of squares along each, (R,)."""
    if len(rows) < rows.shape[1]:
        _, values, right = np.linalg.svd(rows, full_matrices=False)
        squares, axes = np.square(values), right.T
    else:
        squares, axes = np.linalg.eigh(rows.T @ rows)
    there = squares > 1e-10 * squares.max(initial=0.0)
    return axes[:, there], squares[there]


class _Problem:
    """The regression along principal axes; the bias is a last row of the weight, without a penalty."""

    def __init__(
        self,
        rows: NDArray[np.float64],
        labels: NDArray[np.int64],
        classes: int,
        shares: NDArray[np.float64],
        squares: NDArray[np.float64],
    ) -> None:
        self._rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1).astype(np.float32)
        self._labels, self._places, self._classes = labels, np.arange(len(labels)), classes
        self._shares = shares
        self._squares = np.append(squares, shares.sum())
        self._penalised = np.append(np.ones(len(squares)), 0.0)[:, None]

    def beginning(self) -> NDArray[np.float64]:
        """No weight, and the biases of the classes' shares: (R + 1, K)."""
        found = np.zeros((len(self._squares), self._classes))
        counts = np.bincount(self._labels, self._shares, self._classes)
        logs = np.log(np.maximum(counts, 1e-3 * counts.max()))
        found[-1] = logs - logs.mean()
        return found

    def solved(self, inner: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
        """The weight (R + 1, K) for this C, from one to begin with."""
        curvature = _CURVATURE / self._classes * (1 - 1 / self._classes)
        units = np.sqrt(1 + strength * curvature * self._squares)[:, None]

        def objective(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, slope = self._value_and_slope(scaled / units, strength)
            return value, slope / units

        return _lowest(objective, inner * units) / units

    def _value_and_slope(self, inner: NDArray[np.float64], strength: float) -> tuple[float, NDArray[np.float64]]:
        """The objective and its gradient; the products in 32 bits, which take half as long, the sums in 64."""
        scores = self._rows @ inner.astype(np.float32)
        scores -= scores.max(1, keepdims=True)
        own = scores[self._places, self._labels].astype(np.float64)
        np.exp(scores, out=scores)
        sums = scores.sum(1, keepdims=True)
        loss = float(self._shares @ (np.log(sums[:, 0].astype(np.float64)) - own))
        scores /= sums
        scores[self._places, self._labels] -= 1
        scores *= self._shares[:, None].astype(np.float32)
        kept = self._penalised * inner
        slope = strength * (self._rows.T @ scores).astype(np.float64) + kept
        return strength * loss + 0.5 * float(np.square(kept).sum()), slope


def _lowest(objective: _Objective, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a convex function is lowest: L-BFGS, each step halved until the function falls."""
    value, slope = objective(place)
    kept: list[tuple[NDArray[np.float64], NDArray[np.float64], float]] = []
    for _ in range(_STEPS):
        step = _direction(slope, kept)
        fall = float(np.vdot(slope, step))
        length = 1.0
        while True:
            new, other = objective(place + length * step)
            if new <= value + 1e-4 * length * fall + 1e-8 * abs(value) or length < 1e-4:
                break
            length /= 2
        moved, bent = length * step, other - slope
        along = float(np.vdot(moved, bent))
        if along > 1e-12 * float(np.vdot(bent, bent)):
            kept = [*kept, (moved, bent, 1 / along)][-_MEMORY:]
        if new > value:
            break
        gained, place, value, slope = value - new, place + moved, new, other
        if gained < _ENOUGH * abs(value):
            break
    return place


def _direction(
    slope: NDArray[np.float64], kept: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], float]]
) -> NDArray[np.float64]:
    """Minus the inverse curvature, as past steps tell it, times the gradient."""
    found, shares = slope.copy(), []
    for moved, bent, rho in reversed(kept):
        share = rho * float(np.vdot(moved, found))
        shares.append(share)
        found -= share * bent
    if kept:
        _, bent, rho = kept[-1]
        found /= rho * float(np.vdot(bent, bent))
    for (moved, bent, rho), share in zip(kept, reversed(shares), strict=True):
        found += (share - rho * float(np.vdot(bent, found))) * moved
    return -found
