"""Which way from one domain to another to take, without a label of the target that is kept for a test.

Where some samples of the target are labelled, each way answers those that its head was not fitted to. Ways that are no worse than the best
by more than one standard error of the difference, sample by sample, are all that is left (Breiman et al., "Classification and Regression
Trees", 1984); without labels that is every way. Of these the one is taken that agrees most often with what most of the others answer on the
target: each way errs in its own manner, and where many agree they are seldom wrong (Dawid and Skene, "Maximum Likelihood Estimation of
Observer Error-Rates", 1979, on raters without a key). Before all that a way is out whose answers come to fewer than half as many classes
as those of the way that answers the most: they have collapsed.
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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known of a way."""

    name: str
    accuracy: float
    """Of labelled samples that were held out, 0 to 1; NaN where there are none."""
    behind: float
    """How much less often it is right than the best."""
    behind_error: float
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
    """The way to take, what is known of each, and why; of equal ones the first.

    Parameters
    ----------
    right
        How often each way is right on each labelled sample, as `held_out` gives it; empty without labels.
    answers
        Of each way to the target's samples, as numbers (M,) of so many classes.

    >>> right = {"a": np.array([1.0] * 9 + [0.0]), "b": np.array([1.0] * 8 + [0.0] * 2), "c": np.zeros(10)}
    >>> answers = {"a": np.array([0, 1, 1]), "b": np.array([0, 0, 1]), "c": np.array([0, 0, 1])}
    >>> chosen(right, answers, 2)[0]
    'b'
    """
    known = {name: each[np.isfinite(each)] for name, each in right.items()}
    known = {name: each for name, each in known.items() if len(each)}
    best = max(known, key=lambda name: float(known[name].mean())) if known else None
    agreed = agreement(answers, classes)
    judged: list[Judged] = []
    for name, each in answers.items():
        accuracy = apart = error = float("nan")
        if best is not None and name in known:
            lost = known[best] - known[name]
            accuracy, apart = float(known[name].mean()), float(lost.mean())
            error = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else 0.0
        judged.append(
            Judged(
                name=name,
                accuracy=accuracy,
                behind=apart,
                behind_error=error,
                agreement=agreed[name],
                spread=answered_classes(each, classes),
            )
        )
    widest = max(each.spread for each in judged)
    left = [each for each in judged if each.spread >= widest / 2 and not each.behind > each.behind_error]
    left = left or [each for each in judged if each.name == best]
    picked = max(left, key=lambda each: each.agreement)
    agrees = f"it answers what most ways do on {100 * picked.agreement:.1f} % of the target"
    if best is None:
        return picked.name, tuple(judged), f"{agrees}, more than others"
    why = f"right on {100 * picked.accuracy:.1f} % of labelled samples that were held out"
    if len(left) > 1:
        why += f", as good as the best within one standard error, and {agrees}"
    return picked.name, tuple(judged), why
