"""Multinomial logistic regression that learns from a stream, event by event.

``p = softmax(W z)``, and after each label ``G ← G + g ⊙ g``, ``W ← W − η g ⊘ √(G + ε)`` with the gradient ``g = (p − y) zᵀ`` (Duchi, Hazan
and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.head import Head
from mapsto.nn.online.loop import Online
from mapsto.nn.online.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Softmax"]

_EPSILON = 1e-8


class Softmax(Online):
    """A linear classifier of the stream's columns, whose inputs and classes grow with what it meets.

    >>> from mapsto import streams
    >>> model = Softmax(stream=streams.sea(events=2000, noise=0.0))(None)
    >>> model.events, model.signature.classes
    (2000, ('no', 'yes'))
    >>> question = next(streams.sea(events=1, seed=5).open())
    >>> bool(abs(model.open().predict(question).sum() - 1) < 1e-12)
    True
    """

    rate: float = Field(default=0.2, gt=0)
    """η, the rate of AdaGrad; 0.2 did best on seventeen streams."""

    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100}

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        return _AdaGrad(float(cast("float", fields["rate"])))


class _AdaGrad(Rule):
    """Weights (classes, inputs) and the sums of their squared gradients.

    Every product is of one row, so that a block of events and the events one by one give the same bits.

    >>> rule = _AdaGrad(0.2)
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
        if (classes, inputs) != self._weights.shape:
            more = (classes - self._weights.shape[0], inputs - self._weights.shape[1])
            widths = [(0, more[0]), (0, more[1])]
            self._allocate(np.pad(self._weights, widths), np.pad(self._squares, widths))

    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(self._weights):
            return np.zeros(0)
        scores = self._weights.dot(row)
        scores -= np.maximum.reduce(scores)
        np.exp(scores, out=scores)
        scores /= np.add.reduce(scores)
        self._answered = (row, scores)
        return scores

    def learn(self, row: NDArray[np.float64], label: int) -> None:
        answered = self._answered
        error = answered[1].copy() if answered is not None and answered[0] is row else self.scores(row)
        self._answered = None
        error[label] -= 1.0
        gradient, step = self._gradient, self._step
        np.multiply(error[:, None], row, out=gradient)
        np.multiply(gradient, gradient, out=step)
        self._squares += step
        np.add(self._squares, _EPSILON, out=step)
        np.sqrt(step, out=step)
        np.divide(gradient, step, out=step)
        step *= self._rate
        self._weights -= step

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self._weights.copy(), "squares": self._squares.copy()}

    def head(self) -> Head:
        return Head(last=self._weights, bias=np.zeros(len(self._weights)))

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        weights, squares = arrays["weights"].astype(np.float64), arrays["squares"].astype(np.float64)
        if weights.shape != squares.shape or not np.isfinite(weights).all() or not (squares >= 0).all():
            raise ValueError(f"weights {weights.shape} and sums of squares {squares.shape} with NaN or of two shapes")
        self._allocate(weights, squares)

    def _allocate(self, weights: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        self._weights, self._squares, self._answered = weights, squares, None
        self._gradient, self._step = np.empty_like(weights), np.empty_like(weights)
