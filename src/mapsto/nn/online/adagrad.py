"""Softmax regression by AdaGrad as a rule, in NumPy: the same operations in the same order as ``native/csrc/softmax_learner.cpp``.

So it gives the same bits, and what is learnt does not depend on whether native code is to be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.head import Head
from mapsto.nn.online.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AdaGrad"]

_EPSILON = 1e-8
_FACTORIALS = (6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0)
_POWERS = (*(1.0 / factorial for factorial in _FACTORIALS), 0.5, 1.0, 1.0)
"""Of the series of the exponential, the highest power first."""


class AdaGrad(Rule):
    """Weights (inputs, classes) and the sums of their squared gradients. Inputs that are 0 are passed over.

    >>> rule = AdaGrad(0.2)
    >>> rule.grow(2, 2)
    >>> for _ in range(20):
    ...     rule.learn(np.array([1.0, 1.0]), 0)
    ...     rule.learn(np.array([1.0, -1.0]), 1)
    >>> int(rule.scores(np.array([1.0, 1.0])).argmax())
    0
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._answered: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._allocate(np.zeros((0, 0)), np.zeros((0, 0)))

    def grow(self, inputs: int, classes: int) -> None:
        if (inputs, classes) != self._weights.shape:
            grown = np.zeros((2, inputs, classes))
            known = self._weights.shape
            for more, less in zip(grown, (self._weights, self._squares), strict=True):
                more[: known[0], : known[1]] = less
            self._allocate(grown[0], grown[1])

    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self._weights.shape[1]:
            return np.zeros(0)
        if len(row) != len(self._weights):
            raise ValueError(f"a row of {len(row)} inputs for weights of {len(self._weights)}")
        p = self._answer(row)
        self._answered = (row, p)
        return p

    def learn(self, row: NDArray[np.float64], label: int) -> None:
        answered = self._answered
        p = answered[1] if answered is not None and answered[0] is row else self.scores(row)
        self._answered = None
        self._step(row, p, label)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Both (classes, inputs)."""
        return {"weights": self._weights.T.copy(), "squares": self._squares.T.copy()}

    def raise_rate(self, factor: float) -> bool:
        """The sums of squares fall by its square: each weight's rate is so much larger, and falls again with what comes."""
        self._squares /= factor * factor
        return True

    def reset_head(self) -> bool:
        self._weights[:] = 0.0
        self._squares[:] = 0.0
        return True

    def head(self) -> Head:
        weights = self._weights.T.copy()
        return Head(last=weights, bias=np.zeros(len(weights)))

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        weights, squares = arrays["weights"].astype(np.float64), arrays["squares"].astype(np.float64)
        if weights.shape != squares.shape or not np.isfinite(weights).all() or not (squares >= 0).all():
            raise ValueError(f"weights {weights.shape} and sums of squares {squares.shape} with NaN or of two shapes")
        self._allocate(np.ascontiguousarray(weights.T), np.ascontiguousarray(squares.T))

    def _allocate(self, weights: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        self._weights, self._squares, self._answered = weights, squares, None

    def _answer(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = row.nonzero()[0]
        scores = _sum(self._weights[filled] * row[filled, None])
        scores = _exponential(scores - scores.max())
        return scores / _sum(scores)

    def _step(self, row: NDArray[np.float64], p: NDArray[np.float64], label: int) -> None:
        error = p.copy()
        error[label] -= 1.0
        filled = row.nonzero()[0]
        gradient = row[filled, None] * error
        squares = self._squares[filled] + gradient * gradient
        self._squares[filled] = squares
        self._weights[filled] -= self._rate * gradient / np.sqrt(squares + _EPSILON)


def _sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the first axis, one after the other."""
    return np.add.accumulate(values, axis=0)[-1] if len(values) else np.zeros(values.shape[1:])


def _exponential(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """As ``exponential`` in ``native/csrc/online/elementary.h``, of x up to 0."""
    x = np.maximum(x, -700.0)
    shift = 1.5 * 2.0**52
    whole = (x * 1.4426950408889634074 + shift) - shift
    r = (x - whole * 6.93147180369123816490e-01) - whole * 1.90821492927058770002e-10
    total = np.full_like(r, _POWERS[0])
    for power in _POWERS[1:]:
        total *= r
        total += power
    return np.ldexp(total, whole.astype(np.int32))
