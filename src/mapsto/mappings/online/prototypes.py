"""The means of the classes, and the nearest of them under the spread within classes: streaming linear discriminant analysis.

``log p(c | z) = log n_c − ½ (z − μ_c)ᵀ Σ⁻¹ (z − μ_c)`` and a constant, where the covariance within classes is shared,
``Σ = (κ I + Σ_c Σ_{z of c} (z − μ_c)(z − μ_c)ᵀ) / (κ + n)`` (Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear
Discriminant Analysis", 2020); or one variance for all inputs, which leaves the nearest class mean. An event changes the sum by
``n_c / (n_c + 1) d dᵀ``, d its distance from the mean of before (Welford, 1962), so that the inverse is kept up with exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.head import Head
from mapsto.nn.online.inverse import RunningInverse
from mapsto.nn.online.loop import Online
from mapsto.nn.online.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Prototypes"]


class Prototypes(Online):
    """A mean for each class, and the covariance within classes. It needs few events a class, and replays none.

    >>> from mapsto import streams
    >>> model = Prototypes(stream=streams.sea(events=500, noise=0.0))(None)
    >>> question = next(streams.sea(events=200, seed=5, noise=0.0).open())
    >>> bool((model.open().predict(question).argmax(1) == (question.y == "yes")).mean() > 0.9)
    True
    """

    covariance: Literal["shared", "none"] = "shared"
    """Of the inputs within classes: the same for all classes, which takes 4 bytes for each pair of inputs, or none but one variance."""
    shrinkage: float = Field(default=1.0, gt=0)
    """κ, how many events' worth of variance 1 in every direction the covariance starts with."""

    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100}

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 50.0 + 2.5 * inputs

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        shrinkage = float(cast("float", fields["shrinkage"]))
        return _Shared(shrinkage) if fields["covariance"] == "shared" else _OneVariance(shrinkage)


class _Means(Rule):
    """How many events each class had, and their means (classes, inputs)."""

    large = True

    def __init__(self, shrinkage: float) -> None:
        self._shrinkage = shrinkage
        self._counts, self._means = np.zeros(0), np.zeros((0, 0))

    def grow(self, inputs: int, classes: int) -> None:
        more = (classes - self._means.shape[0], inputs - self._means.shape[1])
        if more != (0, 0):
            self._means = np.pad(self._means, [(0, many) for many in more])
            self._counts = np.pad(self._counts, (0, more[0]))

    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(self._counts):
            return np.zeros(0)
        logs = self._log_counts() - 0.5 * (self._shrinkage + self._counts.sum()) * self._distances(row)
        most = logs.max()
        if most == -np.inf:
            return np.full(len(logs), 1.0 / len(logs))
        scores = np.exp(logs - most)
        scores /= np.add.reduce(scores)
        return scores

    def learn(self, row: NDArray[np.float64], label: int) -> None:
        count, apart = float(self._counts[label]), row - self._means[label]
        self._spread(label, apart, count)
        self._counts[label] = count + 1.0
        self._means[label] += apart / (count + 1.0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"counts": self._counts.copy(), "means": self._means.copy()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        counts, means = arrays["counts"], arrays["means"]
        if counts.shape != means.shape[:1] or not np.isfinite(means).all() or not (counts >= 0).all():
            raise ValueError(f"counts {counts.shape} and means {means.shape}, or NaN in them")
        self._counts, self._means = counts.copy(), means.copy()

    def _log_counts(self) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):  # a class of which no event has been learnt
            return np.log(self._counts)

    def head(self) -> Head:
        """The squared distances have ``|z|²`` in common, which leaves a linear function."""
        origin = self._distances(np.zeros(self._means.shape[1]))
        scale = self._shrinkage + self._counts.sum()
        bias = np.maximum(self._log_counts(), -1e9) - 0.5 * scale * origin
        return Head(last=scale * self._slopes(), bias=bias)

    def _slopes(self) -> NDArray[np.float64]:
        """By what half a squared distance falls with each input, (classes, inputs), but for what all classes have in common."""
        raise NotImplementedError

    def _distances(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared distances (classes,) from the means, in units of the sum within classes; what all have in common may be left out."""
        raise NotImplementedError

    def _spread(self, label: int, apart: NDArray[np.float64], count: float) -> None:
        """An event of class `label` lies (inputs,) apart from the mean of the `count` events before it."""
        raise NotImplementedError


class _Shared(_Means):
    """One covariance for all classes.

    >>> rule = _Shared(1.0)
    >>> rule.grow(2, 2)
    >>> for far in (-9.0, 9.0, -8.0, 8.0):
    ...     rule.learn(np.array([far, 1.0]), 0)
    ...     rule.learn(np.array([far, -1.0]), 1)
    >>> rule.scores(np.array([30.0, 1.0])).round(2).tolist()
    [1.0, 0.0]
    """

    def __init__(self, shrinkage: float) -> None:
        super().__init__(shrinkage)
        self._inverse = RunningInverse(shrinkage)
        self._whitened = np.zeros((0, 0))
        """The means (classes, inputs) times the inverse of the sum within classes: what scores need of it."""

    def grow(self, inputs: int, classes: int) -> None:
        super().grow(inputs, classes)
        more = (classes - self._whitened.shape[0], inputs - self._whitened.shape[1])
        if more != (0, 0):
            self._whitened = np.pad(self._whitened, [(0, many) for many in more])
            self._inverse.grow(inputs)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**super().arrays(), "whitened": self._whitened.copy(), **self._inverse.arrays()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().restore(arrays)
        whitened = arrays["whitened"]
        if whitened.shape != self._means.shape or not np.isfinite(whitened).all():
            raise ValueError(f"whitened means {whitened.shape} for means {self._means.shape}, or NaN in them")
        self._whitened = whitened.copy()
        self._inverse.restore(whitened.shape[1], dict(arrays), self._shrinkage)

    def _slopes(self) -> NDArray[np.float64]:
        return self._whitened

    def _distances(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("ci,ci->c", self._whitened, self._means) - 2.0 * self._whitened.dot(row)

    def _spread(self, label: int, apart: NDArray[np.float64], count: float) -> None:
        product = self._inverse.times(apart)
        if count:
            share = count / (count + 1.0)
            scale = self._inverse.add(product, apart, share)
            self._whitened -= np.multiply.outer(self._means.dot(product) / scale, product)
            product /= share * scale
        self._whitened[label] += product / (count + 1.0)


class _OneVariance(_Means):
    """One variance for all inputs and classes.

    >>> rule = _OneVariance(1.0)
    >>> rule.grow(2, 2)
    >>> rule.learn(np.array([1.0, 1.0]), 0)
    >>> rule.learn(np.array([1.0, -1.0]), 1)
    >>> int(rule.scores(np.array([1.0, 0.5])).argmax())
    0
    """

    def __init__(self, shrinkage: float) -> None:
        super().__init__(shrinkage)
        self._squares = 0.0
        """The squared distances from class means, summed over events and inputs."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**super().arrays(), "squares": np.array([self._squares])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().restore(arrays)
        (self._squares,) = arrays["squares"].tolist()
        if not 0 <= self._squares < np.inf:
            raise ValueError(f"squared distances of {self._squares}")

    def _sum(self) -> float:
        """Of squares within classes, an input."""
        return self._shrinkage + self._squares / max(self._means.shape[1], 1)

    def _slopes(self) -> NDArray[np.float64]:
        return self._means / self._sum()

    def _distances(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = self._means - row
        return np.einsum("ci,ci->c", apart, apart) / self._sum()

    def _spread(self, label: int, apart: NDArray[np.float64], count: float) -> None:
        self._squares += count / (count + 1.0) * float(apart.dot(apart))
