"""Which head to take: every way is cross-validated on the same folds of the labelled examples, and one is picked by a rule.

The ways stand in the order in which they are expected to do well. The first is taken unless another is right more often by more than
three standard errors of the difference, example by example (as in Breiman et al., "Classification and Regression Trees", 1984, but
three, since there are several others and few examples): with few labels most differences are luck, and what did best on other data is
the better guess. Of a way on a pool less is believed, since a pool of other things does harm: where the first way without a pool is right
more often by more than one standard error, that one is taken. With one example of each class nothing can be left out, and the first is
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from mapsto.nn.adapt import centroid, logistic, nearest, ridge
from mapsto.nn.adapt.cross_validation import Scorer, folds_of, likeliest_scale, log_losses
from mapsto.nn.adapt.linear_head import LinearHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WAYS", "Choice", "Judged", "Prepared", "Way", "choose"]

FOLDS, REPEATS = 5, 2
_MUCH = 1_000_000
"""Of more scores, examples times classes, dealing the examples anew tells little more, and takes minutes."""
CLEARLY = 3.0
"""By so many standard errors another way has to be better than the first. In tasks of ten classes of CIFAR-100 with five labels each, one
cost 0.2 points of accuracy against always taking the first, two 0.15, three nothing."""

Prepared: TypeAlias = "Callable[[NDArray[np.int64]], Scorer]"
"""Places of the examples to learn from → the head that is fitted to them, a `LinearHead` or a `nearest.Nearest`."""


class Way(NamedTuple):
    """A way to a head."""

    name: str
    prepare: Callable[[NDArray[Any], NDArray[Any], NDArray[Any], int], Prepared]
    """Features (N, D), labels (N,), those of a pool (M, D), number of classes → what fits a head to some of the examples. What labels do
    not decide is done here, once."""
    pool: bool = False
    """Whether it needs a pool."""


def _ridge(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    def fit(places: NDArray[np.int64]) -> LinearHead:
        return LinearHead(*ridge.fit_rooted(features[places], labels[places], classes), root=True)

    return fit


def _plain_ridge(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    def fit(places: NDArray[np.int64]) -> LinearHead:
        return LinearHead(*ridge.fit(features[places], labels[places], classes))

    return fit


def _centroid(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    rows = ridge.rooted(features)

    def fit(places: NDArray[np.int64]) -> LinearHead:
        return LinearHead(*centroid.fit_centred(rows[places], labels[places], classes), root=True)

    return fit


def _logistic(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    """Its strength is chosen once, on all examples: choosing it in every fold would take a hundred times as long."""
    strength, _ = logistic.chosen(features, labels, classes, np.random.default_rng(0))

    def fit(places: NDArray[np.int64]) -> LinearHead:
        return LinearHead(*logistic.fit(features[places], labels[places], classes, strength=strength))

    return fit


def _nearest(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    neighbours, _ = nearest.chosen(features, labels, classes, np.random.default_rng(0))

    def fit(places: NDArray[np.int64]) -> nearest.Nearest:
        return nearest.fit(features[places], labels[places], classes, neighbours=neighbours)

    return fit


WAYS: tuple[Way, ...] = (
    Way("ridge", _ridge),
    Way("centroid", _centroid),
    Way("logistic", _logistic),
    Way("nearest", _nearest),
    Way("ridge without the root", _plain_ridge),
)
"""Without a pool; ridge did best for 1, 2, 5 and 20 labels of 10 classes of CIFAR-100 that no result is given for (docs/few_labels.md)."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What cross-validation says of a way."""

    name: str
    accuracy: float
    """Of held-out examples, 0 to 1; NaN where nothing could be held out."""
    accuracy_error: float
    """One standard error of it over examples."""
    log_loss: float
    """In nats."""
    log_loss_error: float
    against_usual: float
    """How much more often it is right than the way that is taken by default."""
    against_usual_error: float
    """One standard error of that, example by example."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Every way with its figures, the one that was picked, and why."""

    judged: tuple[Judged, ...]
    """In the order that was given: the first is taken by default."""
    picked: Way
    why: str
    fit: Prepared
    """What fits the picked head to examples at some places; all of them give the head to use."""

    def head(self, examples: int) -> Scorer:
        """The picked head, fitted to all examples, of which there are so many."""
        return self.fit(np.arange(examples))


def choose(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    rng: np.random.Generator,
    *,
    ways: Sequence[Way] = (),
    pool: NDArray[Any] | None = None,
    weights: NDArray[Any] | None = None,
    given: int = 0,
    folds: int = FOLDS,
    repeats: int = REPEATS,
) -> Choice:
    """Judge every way and pick one.

    Parameters
    ----------
    features, labels, classes
        (N, D); class numbers (N,), at least one example of each class; K.
    rng
        Deals the examples to folds.
    ways
        In the order in which they are expected to do well, those on a pool first; by default `WAYS`. Those that need a pool are left out
        where there is none.
    pool
        Features (M, D) without labels.
    weights
        Of the examples in the figures, (N,): with classes of unequal size, what makes them count alike.
    given
        So many of the last examples are always learnt from and never judged, such as names of classes.
    folds, repeats
        At most so many folds, and no more than the largest class has examples; so many times over, once where there are many examples of
        many classes.
    """
    unlabelled = features[:0] if pool is None else pool
    there = [way for way in (ways or WAYS) if len(unlabelled) or not way.pool]
    fits = [way.prepare(features, labels, unlabelled, classes) for way in there]
    times = repeats if len(labels) * classes <= _MUCH else 1
    answers = _answers(fits, features, labels, rng, folds, times, given)
    if not len(answers.places):
        none = float("nan")
        judged = [Judged(name=way.name, **dict.fromkeys(_FIGURES, none)) for way in there]
        why = "with one example a class none can be held out; it did best where the answers were known"
        return Choice(judged=tuple(judged), picked=there[0], why=why, fit=fits[0])
    asked = labels[answers.places]
    scales = [
        likeliest_scale(scores, asked, _SCALES) if way.pool else 1.0
        for way, scores in zip(there, answers.scores, strict=True)
    ]
    right = [answers.mean(scores.argmax(1) == asked) for scores in answers.scores]
    losses = [
        answers.mean(log_losses(scale * scores, asked)) for scale, scores in zip(scales, answers.scores, strict=True)
    ]
    shares = None if weights is None else weights[answers.seen]
    judged = [_judged(way.name, right[i], losses[i], right[0], shares) for i, way in enumerate(there)]
    number, why = _picked(judged, [way.pool for way in there])
    fit = _scaled(fits[number], scales[number])
    return Choice(judged=tuple(judged), picked=there[number], why=why, fit=fit)


def _scaled(fit: Prepared, scale: float) -> Prepared:
    """The same with the scores of its linear heads times `scale`."""

    def scaled(places: NDArray[np.int64]) -> Scorer:
        head = fit(places)
        if not isinstance(head, LinearHead):
            return head
        return head._replace(weight=scale * head.weight, bias=scale * head.bias)

    return fit if scale == 1 else scaled


_SCALES = tuple(10.0 ** (step / 12) for step in range(-24, 37))
"""Tried for the scores of a way with a pool, which come at no scale of their own."""
_FIGURES = ("accuracy", "accuracy_error", "log_loss", "log_loss_error", "against_usual", "against_usual_error")


class _Answers(NamedTuple):
    """What each way said of examples that it was not fitted to."""

    places: NDArray[np.int64]
    """(H,): which example each answer is to; each that can be held out, once a repetition."""
    scores: list[NDArray[np.float64]]
    """Of each way (H, K)."""

    @property
    def seen(self) -> NDArray[np.int64]:
        """The examples that were held out."""
        return np.unique(self.places)

    def mean(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of each example in `seen` the mean over its answers, from a value an answer (H,)."""
        times = np.bincount(self.places)
        return np.bincount(self.places, values)[self.seen] / times[self.seen]


def _answers(
    fits: Sequence[Prepared],
    features: NDArray[Any],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    folds: int,
    repeats: int,
    given: int,
) -> _Answers:
    own = len(labels) - given
    always = np.arange(own, len(labels))
    places: list[NDArray[np.int64]] = []
    scores: list[list[NDArray[np.float64]]] = [[] for _ in fits]
    most = int(np.bincount(labels[:own]).max(initial=0))
    for _ in range(repeats if most > 1 else 0):
        fold = folds_of(labels[:own], max(2, min(folds, most)), rng)
        for number in range(int(fold.max()) + 1):
            held, known = np.flatnonzero(fold == number), np.append(np.flatnonzero(fold != number), always)
            if not len(held):
                continue
            places.append(held)
            for found, fit in zip(scores, fits, strict=True):
                found.append(fit(known)(features[held]))
    none = np.zeros(0, np.int64)
    return _Answers(
        np.concatenate([none, *places]), [np.concatenate(found) if found else np.zeros((0, 1)) for found in scores]
    )


def _judged(
    name: str,
    right: NDArray[np.float64],
    losses: NDArray[np.float64],
    usual: NDArray[np.float64],
    shares: NDArray[Any] | None,
) -> Judged:
    accuracy, accuracy_error = _mean(right, shares)
    loss, loss_error = _mean(losses, shares)
    gain, gain_error = _mean(right - usual, shares)
    return Judged(
        name=name,
        accuracy=accuracy,
        accuracy_error=accuracy_error,
        log_loss=loss,
        log_loss_error=loss_error,
        against_usual=gain,
        against_usual_error=gain_error,
    )


def _mean(values: NDArray[np.float64], shares: NDArray[Any] | None) -> tuple[float, float]:
    """The weighted mean and its standard error."""
    shares = np.ones(len(values)) if shares is None else np.asarray(shares, np.float64)
    mean = float(np.average(values, weights=shares))
    spread = float(np.sqrt((np.square(shares) * np.square(values - mean)).sum()) / shares.sum())
    return mean, spread * (len(values) / max(len(values) - 1, 1)) ** 0.5


def _picked(judged: Sequence[Judged], pool: Sequence[bool]) -> tuple[int, str]:
    """The place of the way that is picked, and the reason; `pool` says which ways are on one."""
    better = [i for i, each in enumerate(judged) if each.against_usual > CLEARLY * each.against_usual_error]
    usual = judged[0]
    if not better:
        number = next((i for i, pooled in enumerate(pool) if not pooled), 0) if pool[0] else 0
        own = judged[number]
        if own.against_usual > own.against_usual_error:
            return number, (
                f"right on {100 * own.accuracy:.1f} % of held-out examples without the pool, {usual.name} on "
                f"{100 * usual.accuracy:.1f} %, so that the pool is left aside"
            )
        rivals = max((each.against_usual for each in judged[1:]), default=0.0)
        best = "no other is right more often" if len(judged) > 1 else "it is the only one"
        if rivals > 0:
            best = f"no other is clearly better (the best by {100 * rivals:.1f} points)"
        return 0, f"right on {100 * usual.accuracy:.1f} % of held-out examples; {best}"
    number = max(better, key=lambda i: judged[i].accuracy)
    own = judged[number]
    return number, (
        f"right on {100 * own.accuracy:.1f} % of held-out examples, {usual.name} on {100 * usual.accuracy:.1f} %: a difference of "
        f"{100 * own.against_usual:.1f} ± {100 * own.against_usual_error:.1f} points"
    )
