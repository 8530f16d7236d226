"""Which way from one domain to another to take, without a label of the target that is kept for a test.

The ways stand in the order in which they are expected to do well. A way is out whose answers on the target come to fewer than half as many
classes as those of the most varied way: they have collapsed. Where some samples of the target are labelled, each way answers those that its
head was not fitted to, and the first is taken unless another is right more often by more than three standard errors of the difference,
sample by sample: with few labels most differences are luck, as in `mapsto.nn.adapt.choice_of_head`. Without labels the first is taken that
answers what most of the ways do nearly as often as any: each way errs in its own manner, and where many agree they are seldom wrong (Dawid
and Skene, "Maximum Likelihood Estimation of Observer Error-Rates", 1979, on raters without a key).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mapsto.nn.adapt.cross_validation import folds_of
from mapsto.nn.transfer.spread import answered_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.adapt.cross_validation import Scorer

__all__ = ["Fit", "Judged", "agreement", "chosen", "held_out"]

Fit: TypeAlias = "Callable[[NDArray[np.int64]], Scorer]"
"""Places of the labelled samples to learn from → a head for features of the target."""
FOLDS, REPEATS = 5, 2
CLEARLY = 3.0
"""By so many standard errors another way has to be better than the first."""
NEARLY = 0.1
"""A way is out that agrees with most of the ways by so much less than another. From handwritten to printed digits, on which the rule was
made, good ways were within 0.03 of the highest, and bad ones 0.17 and more below."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known of a way."""

    name: str
    accuracy: float
    """Of labelled samples that were held out, 0 to 1; NaN where there are none."""
    above: float
    """How much more often it is right than the first; NaN where either is not judged."""
    above_error: float
    """One standard error of that, sample by sample."""
    agreement: float
    """How often it answers what most of the ways do, 0 to 1."""
    spread: float
    """As many classes, equally often, as its answers come to."""


def held_out(
    fit: Fit, features: NDArray[np.floating], labels: NDArray[np.int64], rng: np.random.Generator, *, lone: bool
) -> NDArray[np.float64]:
    """How often each labelled sample (N,) is answered rightly without being learnt from, 0 to 1; NaN where it cannot be left out.

    `lone`: whether the only sample of a class can be left out, since the source has others.
    """
    most = int(np.bincount(labels).max(initial=0))
    strata = np.zeros_like(labels) if lone and most < 2 else labels
    folds = max(2, min(FOLDS, int(np.bincount(strata).max(initial=0))))
    right, times = np.zeros(len(labels)), np.zeros(len(labels))
    for _ in range(REPEATS):
        fold = folds_of(strata, folds, rng)
        for number in range(int(fold.max(initial=-1)) + 1):
            held = np.flatnonzero(fold == number)
            if len(held):
                right[held] += fit(np.flatnonzero(fold != number))(features[held]).argmax(1) == labels[held]
                times[held] += 1
    return np.divide(right, times, out=np.full(len(labels), np.nan), where=times > 0)


def agreement(answers: Mapping[str, NDArray[np.int64]], classes: int) -> dict[str, float]:
    """How often each way's answers (M,) are what most of the ways answer, 0 to 1; of as many votes each counts its share.

    >>> agreement({"a": np.array([0, 1]), "b": np.array([0, 1]), "c": np.array([0, 0])}, 2)
    {'a': 1.0, 'b': 1.0, 'c': 0.5}
    """
    votes = sum(np.eye(classes)[each] for each in answers.values())
    most = np.asarray(votes) == np.max(votes, axis=1, keepdims=True)
    shares = most / most.sum(1, keepdims=True)
    return {name: float(shares[np.arange(len(each)), each].mean()) for name, each in answers.items()}


def chosen(
    right: Mapping[str, NDArray[np.float64]], answers: Mapping[str, NDArray[np.int64]], classes: int
) -> tuple[str, tuple[Judged, ...], str]:
    """The way to take, what is known of each, and why.

    Parameters
    ----------
    right
        How often each way is right on each labelled sample, as `held_out` gives it; empty without labels.
    answers
        Of each way to the target's samples, as numbers (M,) of so many classes; in the order in which they are expected to do well.

    >>> right = {"a": np.zeros(10), "b": np.array([1.0] * 9 + [0.0]), "c": np.array([0.0] * 9 + [1.0])}
    >>> chosen(right, dict.fromkeys("abc", np.array([0, 1, 1])), 2)[0]
    'b'
    """
    agreed = agreement(answers, classes)
    spread = {name: answered_classes(each, classes) for name, each in answers.items()}
    whole = [name for name in answers if spread[name] >= max(spread.values()) / 2]
    able = [name for name in whole if name in right and np.isfinite(right[name]).any()]
    first = (able or whole)[0]
    judged = tuple(_judged(name, first, right, agreed[name], spread[name]) for name in answers)
    known = {each.name: each for each in judged}
    if able:
        clearly = [name for name in able if known[name].above > CLEARLY * known[name].above_error]
        picked = max(clearly, key=lambda name: known[name].accuracy) if clearly else first
        why = f"right on {100 * known[picked].accuracy:.1f} % of labelled samples that were held out"
        than = f", {first} on {100 * known[first].accuracy:.1f} %" if clearly else "; no other way is clearly better"
        return picked, judged, why + than
    most = max(agreed[name] for name in whole)
    picked = next(name for name in whole if agreed[name] >= most - NEARLY)
    why = f"of the ways that answer about what most do the first: on {100 * agreed[picked]:.1f} % of the target, {100 * most:.1f} % at most"
    return picked, judged, why


def _judged(name: str, first: str, right: Mapping[str, NDArray[np.float64]], agreed: float, spread: float) -> Judged:
    accuracy = above = error = float("nan")
    own = right[name][np.isfinite(right[name])] if name in right else np.zeros(0)
    if len(own):
        accuracy = float(own.mean())
    if len(own) and first in right:
        apart = right[name] - right[first]
        apart = apart[np.isfinite(apart)]
        if len(apart):
            above = float(apart.mean())
            error = float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else float("inf")
    return Judged(name=name, accuracy=accuracy, above=above, above_error=error, agreement=agreed, spread=spread)
