"""Random features and ridge regression, kept exact event by event: the strongest simple head on a frozen encoder.

``φ = max(0, z P / √inputs)`` with P drawn once, ``W = (λ I + Σ φ φᵀ)⁻¹ Σ φ yᵀ`` over all events so far, scores ``φᵀ W``. W does not
depend on the order of the events, a new class is a new column, and nothing is replayed (McDonnell et al., "RanPAC: Random Projections and
Pre-trained Models for Continual Learning", 2023). λ is chosen by generalised cross-validation (Golub, Heath and Wahba, 1979).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.draws import unit_weights
from mapsto.nn.online.head import Head
from mapsto.nn.online.inverse import RunningInverse, added_products, packed, unpacked
from mapsto.nn.online.loop import Online
from mapsto.nn.online.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ridge"]

_RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Candidates for λ; the middle one until there are events to choose by."""
_FIRST_CHOICE = 1000
"""Events before λ is chosen; it is chosen again at four times as many, and so on."""
_PROJECTION, _WIDE = 1000, 500
"""Random features by default, and the inputs from which there are none."""
_AT_ONCE = 64
"""Rows whose products enter the Gram matrix together."""
_SHARPNESS = 8.0
"""Of the softmax over scores, before the first event."""
_SHARPNESS_RATE = 0.02


class Ridge(Online):
    """A ridge classifier on random features, whose weights after each event are those of solving anew with all events so far.

    λ is chosen after 1000 events, 4000, 16,000 and so on. The event at which it is takes longer: half a second at 1000 random features.

    >>> from mapsto import streams
    >>> model = Ridge(stream=streams.sea(events=500, noise=0.0), projection=50)(None)
    >>> model.events, model.signature.classes
    (500, ('no', 'yes'))
    >>> question = next(streams.sea(events=200, seed=5, noise=0.0).open())
    >>> bool((model.open().predict(question).argmax(1) == (question.y == "yes")).mean() > 0.95)
    True
    """

    version: ClassVar[int] = 2

    projection: int | None = Field(default=None, ge=0)
    """Random features; 0 for none, which regresses on the inputs themselves. By default 1000, or none where the first event has more than
    500 inputs: fewer random features than inputs lose what an encoder made of an image, and several times as many cost their square. The
    state takes 8 bytes for each pair of two."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the random features."""

    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100, "projection": 20}

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        features = fields["projection"] or (inputs if fields["projection"] == 0 or inputs > _WIDE else _PROJECTION)
        return 50.0 + 5.0 * inputs + 6e-4 * features * features

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        return _Ridge(cast("int | None", fields["projection"]), cast("int", fields["seed"]))


class _Ridge(Rule):
    """Weights (classes, features), the inverse and the sums that they come from.

    >>> rule = _Ridge(0, 0)
    >>> rule.grow(2, 2)
    >>> for _ in range(40):
    ...     rule.learn(np.array([1.0, 1.0]), 0)
    ...     rule.learn(np.array([1.0, -1.0]), 1)
    >>> rule.scores(np.array([1.0, 1.0])).round(2).tolist()
    [1.0, 0.0]
    """

    large = True

    def __init__(self, projection: int | None, seed: int) -> None:
        self._seed = seed
        self._decided = projection is not None
        """Whether `_projection` is what it will be."""
        self._projection = projection or 0
        self._ridge = _RIDGES[len(_RIDGES) // 2]
        self._labels, self._sharpness = 0, _SHARPNESS
        self._answered: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None = None
        self._begin()

    def _begin(self) -> None:
        projection = self._projection
        self._directions = np.zeros((0, projection))
        self._inverse = RunningInverse(self._ridge)
        self._inverse.grow(projection)
        self._weights = np.zeros((0, projection))
        self._sums = np.zeros((0, projection))
        """Of the features of each class's events."""
        self._gram = np.zeros((projection, projection), order="F")
        self._recent, self._recents = np.zeros((_AT_ONCE, projection)), 0
        """Features whose products are not in `_gram` yet, and of how many rows."""

    def grow(self, inputs: int, classes: int) -> None:
        if not self._decided:
            self._decided = True
            self._projection = _PROJECTION if inputs <= _WIDE else 0
            self._begin()
        before = len(self._directions)
        if inputs > before:
            drawn = [unit_weights(self._seed, place, self._projection) for place in range(before, inputs)]
            self._directions = np.concatenate([self._directions, np.array(drawn)])
        features = self._projection or inputs
        more = (classes - len(self._weights), features - self._weights.shape[1])
        if more != (0, 0):
            self._weights, self._sums = (
                np.pad(each, [(0, many) for many in more]) for each in (self._weights, self._sums)
            )
        if more[1]:
            self._inverse.grow(features)
            self._gram = np.asfortranarray(np.pad(self._gram, (0, more[1])))
            self._recent = np.pad(self._recent, ((0, 0), (0, more[1])))

    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(self._weights):
            return np.zeros(0)
        features = self._features(row)
        answer = self._weights.dot(features)
        self._answered = (row, features, answer)
        return _softmax(answer * self._sharpness)

    def learn(self, row: NDArray[np.float64], label: int) -> None:
        features, answer = self._known(row)
        self._sharpen(answer, label)
        product = self._inverse.times(features)
        scale = self._inverse.add(product, features)
        error = -answer
        error[label] += 1.0
        self._weights += np.multiply.outer(error / scale, product)
        self._sums[label] += features
        self._recent[self._recents] = features
        self._recents += 1
        if self._recents == _AT_ONCE:
            self._enter()
        self._labels += 1
        if self._labels >= _FIRST_CHOICE and self._labels == _choice_at(self._labels):
            self._choose()

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "weights": self._weights.copy(),
            "sums": self._sums.copy(),
            "gram": packed(self._gram),
            "recent": self._recent.copy(),
            "numbers": np.array(
                [self._ridge, self._labels, self._sharpness, self._recents, self._decided, self._projection]
            ),
            **self._inverse.arrays(),
        }

    def head(self) -> Head:
        last, bias = self._sharpness * self._weights, np.zeros(len(self._weights))
        if not self._projection:
            return Head(last=last, bias=bias)
        return Head(first=self._directions.T / len(self._directions) ** 0.5, last=last, bias=bias)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        weights, sums, recent = arrays["weights"], arrays["sums"], arrays["recent"]
        ridge, labels, sharpness, recents, decided, projection = arrays["numbers"].tolist()
        if not self._decided and decided:
            if projection not in (0, _PROJECTION):
                raise ValueError(f"{projection} random features, where nobody chose so many")
            self._decided, self._projection = True, int(projection)
            self._begin()
        size = self._projection or weights.shape[1]
        if not weights.shape == sums.shape == (len(weights), size) or recent.shape != (_AT_ONCE, size):
            raise ValueError(f"weights {weights.shape}, sums {sums.shape} and recent features {recent.shape}")
        if not all(np.isfinite(each).all() for each in (weights, sums, recent)) or not 0 <= recents < _AT_ONCE:
            raise ValueError("weights, sums or recent features with NaN, or too many")
        if ridge not in _RIDGES or labels < 0 or not 0 < sharpness < np.inf:
            raise ValueError(f"a regularisation of {ridge}, {labels} labels, a sharpness of {sharpness}")
        self._weights, self._sums = weights.copy(), sums.copy()
        self._gram = unpacked(arrays["gram"], size)
        self._recent, self._recents = recent.copy(), int(recents)
        self._ridge, self._labels, self._sharpness = ridge, int(labels), sharpness
        self._inverse.restore(size, dict(arrays), ridge)

    # -- private

    def _features(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """φ (features,) of a row (inputs,)."""
        if not self._projection:
            return row
        if len(row) > len(self._directions):  # restored, and not grown yet
            self.grow(len(row), len(self._weights))
        features = row.dot(self._directions[: len(row)])
        features /= len(row) ** 0.5
        return np.maximum(features, 0.0, out=features)

    def _known(self, row: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A row's features and answer (classes,): those of just now where it is the row that was answered last."""
        answered = self._answered
        self._answered = None
        features = answered[1] if answered is not None and answered[0] is row else self._features(row)
        if answered is not None and answered[0] is row and len(answered[2]) == len(self._weights):
            return features, answered[2]
        return features, self._weights.dot(features)

    def _sharpen(self, answer: NDArray[np.float64], label: int) -> None:
        """A step of the softmax's sharpness down the log loss."""
        expected = float(_softmax(answer * self._sharpness).dot(answer))
        slope = self._sharpness * (expected - float(answer[label]))
        self._sharpness *= float(np.exp(-_SHARPNESS_RATE * min(max(slope, -1.0), 1.0)))

    def _enter(self) -> None:
        self._gram = added_products(self._gram, self._recent[: self._recents])
        self._recents = 0

    def _choose(self) -> None:
        """Choose λ by generalised cross-validation over all events so far, and solve anew: rounding starts from nothing again."""
        if self._recents:
            self._enter()
        spectrum, basis = np.linalg.eigh(self._gram, UPLO="U")
        spectrum = np.maximum(spectrum, 0.0)
        squares = np.square(self._sums.dot(basis)).sum(0)

        def criterion(ridge: float) -> float:
            shares = 1.0 / (spectrum + ridge)
            residual = self._labels - 2.0 * (squares * shares).sum() + (squares * spectrum * shares * shares).sum()
            return float(residual / (self._labels - (spectrum * shares).sum()) ** 2)

        self._ridge = min(_RIDGES, key=criterion)
        inverse = (basis / (spectrum + self._ridge)).dot(basis.T)
        self._inverse.set(np.triu(inverse), self._ridge)
        self._weights = self._sums.dot(inverse)


def _choice_at(labels: int) -> int:
    """The last number of labels, up to this one, at which λ is chosen.

    >>> [_choice_at(labels) for labels in (1000, 3999, 4000, 16001)]
    [1000, 1000, 4000, 16000]
    """
    at = _FIRST_CHOICE
    while at * 4 <= labels:
        at *= 4
    return at


def _softmax(answer: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.exp(answer - np.maximum.reduce(answer))
    scores /= np.add.reduce(scores)
    return scores
