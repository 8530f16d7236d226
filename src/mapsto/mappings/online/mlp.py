"""A small network that learns from each event together with a few from before, replayed from a sample of all events.

``p = softmax(V max(0, U z))``; after each label one step of Adam (Kingma and Ba, "Adam", 2015) on the mean cross-entropy of the event and
of `replay` rows of a reservoir, in which every event so far is as likely as any other (Vitter, "Random Sampling with a Reservoir", 1985).
Classes that come one after another are then not forgotten (Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.draws import number_below, unit_weights
from mapsto.nn.online.head import Head
from mapsto.nn.online.loop import Online
from mapsto.nn.online.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mlp"]

_DECAYS = (0.9, 0.999)
"""β₁ and β₂ of Adam."""
_EPSILON = 1e-8
_CALMING = 0.99
"""By how much a raised rate falls with each event."""


class Mlp(Online):
    """One hidden layer, whose inputs and classes grow with what it meets, and a memory of past events.

    >>> from mapsto import streams
    >>> model = Mlp(stream=streams.sea(events=500, noise=0.0))(None)
    >>> question = next(streams.sea(events=200, seed=5, noise=0.0).open())
    >>> bool((model.open().predict(question).argmax(1) == (question.y == "yes")).mean() > 0.9)
    True
    """

    hidden: int = Field(default=64, ge=1)
    """Hidden units."""
    rate: float = Field(default=3e-3, gt=0)
    """The rate of Adam."""
    replay: int = Field(default=7, ge=0)
    """Past events in every step."""
    memory: int = Field(default=2000, ge=1)
    """Events that are kept to be replayed."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the first weights and of what is replayed."""

    contract: ClassVar[dict[str, Any]] = {
        "stream": {"sea": {"events": 300}},
        "every": 100,
        "hidden": 8,
        "replay": 2,
        "memory": 100,
    }

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 60.0 + 0.05 * fields["hidden"] * inputs + 6.0 * fields["replay"]

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        return _Perceptron(
            **{name: cast("Any", fields[name]) for name in ("hidden", "rate", "replay", "memory", "seed")}
        )


class _Perceptron(Rule):
    """Weights U (hidden, inputs) and V (classes, hidden), Adam's averages of each, and the memory.

    Every product is of one row or of the rows of one step, so that blocks of any size give the same bits.

    >>> rule = _Perceptron(hidden=8, rate=0.01, replay=3, memory=10, seed=0)
    >>> rule.grow(2, 2)
    >>> for _ in range(100):
    ...     rule.learn(np.array([1.0, 1.0]), 0)
    ...     rule.learn(np.array([1.0, -1.0]), 1)
    >>> int(rule.scores(np.array([1.0, 1.0])).argmax())
    0
    """

    large = True

    def __init__(self, *, hidden: int, rate: float, replay: int, memory: int, seed: int) -> None:
        self._rate, self._replay, self._memory, self._seed = rate, replay, memory, seed
        self._layers = (_Adam(np.zeros((hidden, 0))), _Adam(np.zeros((0, hidden))))
        self._rows, self._labels = np.zeros((memory, 0)), np.zeros(memory, np.int64)
        self._step = 0
        """Events that have been learnt."""
        self._boost = 1.0
        """By how much the rate is raised at present."""

    def grow(self, inputs: int, classes: int) -> None:
        first, last = self._layers
        before = first.weights.shape[1]
        if inputs > before:
            drawn = [unit_weights(self._seed, place, len(first.weights)) for place in range(before, inputs)]
            first.grow(np.array(drawn).T * (2.0 / inputs) ** 0.5, axis=1)
            self._rows = np.pad(self._rows, ((0, 0), (0, inputs - before)))
        if classes > len(last.weights):
            last.grow(np.zeros((classes - len(last.weights), last.weights.shape[1])), axis=0)

    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        first, last = self._layers
        if not len(last.weights):
            return np.zeros(0)
        return _softmax(last.weights.dot(np.maximum(first.weights.dot(row), 0.0))[None])[0]

    def learn(self, row: NDArray[np.float64], label: int) -> None:
        first, last = self._layers
        kept, draws = min(self._step, self._memory), self._step * (self._replay + 1)
        chosen = [number_below(kept, self._seed, draws + 1 + each) for each in range(self._replay if kept else 0)]
        rows = np.concatenate([row[None], self._rows[chosen]])
        hidden = np.maximum(rows.dot(first.weights.T), 0.0)
        error = _softmax(hidden.dot(last.weights.T))
        error[np.arange(len(rows)), [label, *self._labels[chosen].tolist()]] -= 1.0
        error /= len(rows)
        behind = error.dot(last.weights)
        behind[hidden <= 0.0] = 0.0
        place = self._step if self._step < self._memory else number_below(self._step + 1, self._seed, draws)
        if place < self._memory:
            self._rows[place], self._labels[place] = row, label
        self._step += 1
        rate = self._rate * self._boost
        self._boost = max(1.0, _CALMING * self._boost)
        last.descend(error.T.dot(hidden), self._step, rate)
        first.descend(behind.T.dot(rows), self._step, rate)

    def raise_rate(self, factor: float) -> bool:
        self._boost *= factor
        return True

    def reset_head(self) -> bool:
        first, last = self._layers
        self._layers = (first, _Adam(np.zeros_like(last.weights)))
        return True

    def arrays(self) -> dict[str, NDArray[Any]]:
        first, last = self._layers
        return {
            **{f"first_{name}": array for name, array in first.arrays().items()},
            **{f"last_{name}": array for name, array in last.arrays().items()},
            "memory_rows": self._rows.copy(),
            "memory_labels": self._labels.copy(),
            "step": np.array([self._step]),
            **({"boost": np.array([self._boost])} if self._boost > 1.0 else {}),
        }

    def head(self) -> Head:
        first, last = (layer.weights for layer in self._layers)
        return Head(first=first, last=last, bias=np.zeros(len(last)))

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        hidden = len(self._layers[0].weights)
        first, last = (
            _Adam(*(arrays[f"{layer}_{name}"].copy() for name in ("weights", "mean", "squares")))
            for layer in ("first", "last")
        )
        inputs, classes = first.weights.shape[1], len(last.weights)
        rows, labels, (step,) = arrays["memory_rows"], arrays["memory_labels"], arrays["step"].tolist()
        if first.weights.shape != (hidden, inputs) or last.weights.shape != (classes, hidden):
            raise ValueError(f"weights {first.weights.shape} and {last.weights.shape} for {hidden} hidden units")
        if (rows.shape, labels.shape) != ((self._memory, inputs), (self._memory,)) or not np.isfinite(rows).all():
            raise ValueError(f"a memory of shape {rows.shape} for {self._memory} rows, or NaN in it")
        if step < 0 or (step and not ((labels >= 0) & (labels < classes)).all()):
            raise ValueError(f"{step} steps, or a class in the memory that is not there")
        self._layers = (first, last)
        self._boost = float(arrays["boost"][0]) if "boost" in arrays else 1.0
        self._rows, self._labels, self._step = rows.copy(), labels.copy(), step


class _Adam:
    """Weights, and Adam's averages of their gradients and of the squares of these. Raises `ValueError` where these do not fit together."""

    def __init__(
        self,
        weights: NDArray[np.float64],
        mean: NDArray[np.float64] | None = None,
        squares: NDArray[np.float64] | None = None,
    ) -> None:
        self.weights = weights
        self._mean = np.zeros_like(weights) if mean is None else mean
        self._squares = np.zeros_like(weights) if squares is None else squares
        if not weights.shape == self._mean.shape == self._squares.shape:
            raise ValueError(f"weights {weights.shape} with averages {self._mean.shape} and {self._squares.shape}")
        if not all(np.isfinite(each).all() for each in (weights, self._mean)) or not (self._squares >= 0).all():
            raise ValueError("weights or averages with NaN")

    def grow(self, weights: NDArray[np.float64], *, axis: int) -> None:
        """Append weights whose averages are zero."""
        self.weights = np.ascontiguousarray(np.concatenate([self.weights, weights], axis))
        self._mean, self._squares = (
            np.concatenate([each, np.zeros_like(weights)], axis) for each in (self._mean, self._squares)
        )

    def descend(self, gradient: NDArray[np.float64], step: int, rate: float) -> None:
        """A step, the number of which counts from 1."""
        slow, slower = _DECAYS
        self._mean += (1.0 - slow) * (gradient - self._mean)
        self._squares += (1.0 - slower) * (gradient * gradient - self._squares)
        size = np.sqrt(self._squares / (1.0 - slower**step))
        size += _EPSILON
        self.weights -= (rate / (1.0 - slow**step)) * self._mean / size

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and averages."""
        return {"weights": self.weights.copy(), "mean": self._mean.copy(), "squares": self._squares.copy()}


def _softmax(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row's softmax, in place."""
    answers -= np.maximum.reduce(answers, 1, keepdims=True)
    np.exp(answers, out=answers)
    answers /= np.add.reduce(answers, 1, keepdims=True)
    return answers
