"""What recipes will come to on a task that nobody has tried them on, from what they came to on others.

Within each known task the points of its runs become z-scores, so that tasks of any difficulty count alike. A forest of trees, each grown
on tasks drawn with replacement, says how much a recipe here is like a run there: ``w_i = mean over trees of 1[i is in the same leaf] /
leaf size`` (Meinshausen, "Quantile Regression Forests", 2006). These weights are blended with a plain prior, in which each recipe is its
own mean over all tasks: ``w = (1 − α) / T + α w_forest``. What is averaged is what a run came to beyond its own landmark, ``γ L + Σ w_i
(z_i − γ L_i)``, where L says how far the landmark of the recipe's network and head is above those of other recipes on the same task.
Mean, interval and the runs that an answer leans on all come from w. α, γ and how much wider an interval has to be (Romano, Patterson and
Candès, "Conformalized Quantile Regression", 2019) are chosen by leaving out one known domain after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import DataError
from mapsto.search.advisor.encoding import Encoding, anchor, own_landmark
from mapsto.search.advisor.goal import Goal
from mapsto.search.advisor.runs import Task
from mapsto.search.advisor.space import Kind

__all__ = ["COVERAGE", "Lean", "Prediction", "Surrogate", "default_recipe"]

COVERAGE = 0.9
"""Of the intervals, which begin as the middle half of what is known and are made wider, or narrower, until they hold that."""
_TREES = 40
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidates for α."""
_GAINS = (0.0, 0.25, 0.5, 1.0)
"""Candidates for γ."""
_CLIP = 3.0
"""A z-score beyond it counts as this: one recipe that fails badly must not decide the scale."""
_LEAF = 4


@dataclass(frozen=True, kw_only=True)
class Lean:
    """A known run, and how much of an answer comes from it."""

    task: Task
    recipe: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What every recipe of a space is thought to come to on one task, in the order of the space."""

    score: NDArray[np.float64]
    """Mean z-scores (R,): larger is better."""
    spread: float
    """The standard deviation of a score's error."""
    scale: float
    """Points that one z-score is, as a rule."""
    accuracy: NDArray[np.float64]
    """Percent (R,)."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    size: NDArray[np.float64]
    """Bytes (R,), the geometric mean of known runs."""
    weights: NDArray[np.float64]
    """Of the known runs (R, runs)."""
    alike: float
    """Distance from the nearest known task, in units of the distance beyond which a task is unlike all known ones."""
    nearest: Task
    share: float
    """α: how much the forest said, and not the recipes' means."""

    @property
    def unlike(self) -> bool:
        """Whether the task is unlike all known ones, so that only the recipes' means are left to go by."""
        return self.alike > 1.0

    @property
    def order(self) -> NDArray[np.int64]:
        """The recipes, the best first."""
        return np.argsort(-self.score, kind="stable")


class Surrogate:
    """A model of the runs of one kind of data."""

    def __init__(self, tasks: Sequence[Task], goal: Goal, *, seed: int = 0, choose: bool = True) -> None:
        """Raises `DataError` where no task has two runs."""
        usable = [task for task in tasks if np.isfinite(task.accuracy()).sum() > 1]
        if not usable:
            raise DataError("no task of this kind has been tried", hint="learn from finished runs, or give a --prior")
        self.tasks, self.goal, self.seed = usable, goal, seed
        self.kind: Kind = usable[0].kind
        self.encoding = Encoding(self.kind, [task.features for task in usable])
        self._accuracy = np.stack([task.accuracy() for task in usable])
        self._bytes = np.stack([task.bytes() for task in usable])
        points = np.stack([goal.of(*pair) for pair in zip(self._accuracy, self._bytes, strict=True)])
        self._known = ~np.isnan(points)
        self.z, self._scales = _standardised(points)
        self._anchors = np.array([anchor(self.kind, task.features) for task in usable])
        self.scale = float(np.median(self._scales))
        self._ahead = np.stack([self._ahead_of(task.features) for task in usable])
        self._trees = self._grown() if len(usable) > 1 else []
        self.share, self.gain, self.spread, self._wider = 0.5, 0.5, 1.0, 10.0
        self.kept = np.full((len(usable), points.shape[1]), np.nan)
        """Errors of the scores of known tasks that were left out, by which recipes are known to go together."""
        if choose and len(usable) > 2:
            self._choose()

    # -- asking

    def predict(self, features: Mapping[str, float]) -> Prediction:
        """What every recipe will come to on a task of these features."""
        alike, nearest = self._alike(features)
        share = 0.0 if alike > 1.0 else self.share
        return self._predicted(features, share, self.gain, alike, nearest)

    def leans(self, prediction: Prediction, recipe: int, count: int = 5) -> list[Lean]:
        """The known runs that an answer leans on most."""
        places = np.argwhere(self._known)
        order = np.argsort(-prediction.weights[recipe], kind="stable")[:count]
        return [
            Lean(
                task=self.tasks[places[at][0]], recipe=int(places[at][1]), weight=float(prediction.weights[recipe][at])
            )
            for at in order
            if prediction.weights[recipe][at] > 0
        ]

    def _ahead_of(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """L: how far each recipe's own landmark is above the mean of all, in z-scores (R,); 0 where it is not known."""
        own = np.array([own_landmark(self.kind, features, holes) for holes in self.encoding.recipes])
        if np.isnan(own).all():
            return np.zeros(len(own))
        return np.asarray(np.nan_to_num(100.0 * (own - np.nanmean(own)) / self.scale), np.float64)

    def _predicted(
        self, features: Mapping[str, float], share: float, gain: float, alike: float, nearest: Task
    ) -> Prediction:
        weights = self._weights(features, share)
        gone = self._accuracy[self._known] == -np.inf
        known = self._accuracy[self._known]
        behind = np.where(gone, 0.0, known) - np.repeat(self._anchors, self._known.sum(1))
        here = anchor(self.kind, features)
        low, middle, high = _quantiles(behind, weights, (0.25, 0.5, 0.75))
        sizes = np.log(np.maximum(np.nan_to_num(self._bytes[self._known], nan=1.0), 1.0)) * ~gone
        return Prediction(
            score=gain * self._ahead_of(features) + weights @ (self.z - gain * self._ahead)[self._known],
            spread=self.spread,
            scale=self.scale,
            accuracy=np.clip(here + middle, 0, 100),
            low=np.clip(here + np.minimum(low - self._wider, middle), 0, 100),
            high=np.clip(here + np.maximum(high + self._wider, middle), 0, 100),
            size=np.exp(self._own @ sizes / np.maximum(self._own @ (~gone).astype(float), 1e-12)),
            weights=weights,
            alike=alike,
            nearest=nearest,
            share=share,
        )

    def _weights(self, features: Mapping[str, float], share: float) -> NDArray[np.float64]:
        """(R, runs), each row summing to 1."""
        if not self._trees or share == 0:
            return self._own
        return (1 - share) * self._own + share * self._of_forest(features)

    def _of_forest(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """The forest's own weights (R, runs)."""
        if not self._trees:
            return self._own
        rows = self.encoding.rows(features)
        total = np.zeros_like(self._own)
        for tree, leaves in self._trees:
            same = tree.apply(rows)[:, None] == leaves
            total += same / np.maximum(same.sum(1, keepdims=True), 1)
        return total / np.maximum(total.sum(1, keepdims=True), 1e-12)

    @cached_property
    def _own(self) -> NDArray[np.float64]:
        """Weights by which each recipe is its own mean; one that nobody ran is the mean of all."""
        places = np.argwhere(self._known)
        own = (np.arange(self.z.shape[1])[:, None] == places[:, 1]).astype(float)
        own[own.sum(1) == 0] = 1.0
        return own / own.sum(1, keepdims=True)

    def _grown(self) -> list[tuple[Any, NDArray[np.int64]]]:
        from sklearn.tree import ExtraTreeRegressor

        rows = np.concatenate(
            [self.encoding.rows(task.features)[k] for task, k in zip(self.tasks, self._known, strict=True)]
        )
        owner, target = np.repeat(np.arange(len(self.tasks)), self._known.sum(1)), self.z[self._known]
        rng = np.random.default_rng(self.seed)
        found = []
        for number in range(_TREES):
            drawn = np.bincount(rng.integers(len(self.tasks), size=len(self.tasks)), minlength=len(self.tasks))
            weight = drawn[owner].astype(float)
            tree = ExtraTreeRegressor(min_samples_leaf=_LEAF, max_features=0.5, random_state=self.seed * 1000 + number)
            tree.fit(rows[weight > 0], target[weight > 0], sample_weight=weight[weight > 0])
            leaves = np.where(weight > 0, tree.apply(rows), -1)
            found.append((tree, leaves))
        return found

    # -- how far known tasks are apart

    def _alike(self, features: Mapping[str, float]) -> tuple[float, Task]:
        apart = self._apart(self.encoding.task(features))
        at = int(np.argmin(apart))
        return float(apart[at] / self._far), self.tasks[at]

    def _apart(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Root mean squared differences from the known tasks, over the features that both have, in units of their spread."""
        with np.errstate(invalid="ignore"):
            difference = np.square((self._rows - row) / self._unit)
        there = ~np.isnan(difference)
        total = np.where(there, np.minimum(difference, 100.0), 0.0).sum(1)
        return np.where(there.any(1), np.sqrt(total / np.maximum(there.sum(1), 1)), 10.0)

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        return np.stack([self.encoding.task(task.features) for task in self.tasks])

    @cached_property
    def _unit(self) -> NDArray[np.float64]:
        known = ~np.isnan(self._rows)
        count = np.maximum(known.sum(0), 1)
        filled = np.where(known, self._rows, 0.0)
        mean = filled.sum(0) / count
        spread = np.sqrt(np.where(known, np.square(self._rows - mean), 0.0).sum(0) / count)
        return np.where(spread > 1e-9, spread, 1.0)

    @cached_property
    def _far(self) -> float:
        """So far from a task of another domain nearly all known tasks are not."""
        groups = _groups(self.tasks)
        nearest = []
        for at, task in enumerate(self.tasks):
            apart = self._apart(self._rows[at])
            others = [other for other in range(len(self.tasks)) if groups[other] != groups[at]]
            if others:
                nearest.append(apart[others].min())
            del task
        return float(np.quantile(nearest, 0.95)) * 1.25 if nearest else 1.0

    # -- settings, by leaving out known domains

    def _choose(self) -> None:
        groups = _groups(self.tasks)
        settings = [(share, gain) for share in _SHARES for gain in _GAINS]
        chosen: dict[tuple[float, float], list[float]] = {each: [] for each in settings}
        without: list[tuple[int, Surrogate]] = []
        for group in dict.fromkeys(groups):
            rest = [task for task, other in zip(self.tasks, groups, strict=True) if other != group]
            inner = Surrogate(rest, self.goal, seed=self.seed, choose=False)
            inner._wider = 0.0
            without += [(at, inner) for at, other in enumerate(groups) if other == group]
        for at, inner in without:
            features, z = self.tasks[at].features, self.z[at]
            forest, ahead = inner._of_forest(features), inner._ahead_of(features)
            for share, gain in settings:
                beyond = (inner.z - gain * inner._ahead)[inner._known]
                score = gain * ahead + ((1 - share) * inner._own + share * forest) @ beyond
                order = np.argsort(np.where(self._known[at], -score, np.inf), kind="stable")[:3]
                chosen[share, gain].append(float(z[order[0]] + z[order].mean()) / 2)
        self.share, self.gain = max(settings, key=lambda each: (round(float(np.mean(chosen[each])), 3), -sum(each)))
        missed: list[NDArray[np.float64]] = []
        for at, inner in without:
            alike, nearest = inner._alike(self.tasks[at].features)
            prediction = inner._predicted(self.tasks[at].features, self.share, self.gain, alike, nearest)
            self.kept[at] = np.where(self._known[at], self.z[at] - prediction.score, np.nan)
            accuracy = self._accuracy[at]
            there = np.isfinite(accuracy)
            beyond = np.maximum(prediction.low - accuracy, accuracy - prediction.high)[there]
            missed.append(np.quantile(beyond, np.linspace(0, 1, 101)))  # so that each task counts alike
        self.spread = float(np.sqrt(np.nanmean(np.square(self.kept))))
        level = min(
            1.0, COVERAGE + (1 - COVERAGE) / len(missed)
        )  # errors of a task go together: of few tasks a little wider
        self._wider = float(np.quantile(np.concatenate(missed), level))


def default_recipe(tasks: Sequence[Task], goal: Goal) -> int:
    """The recipe that is best on these tasks by its mean z-score: what one would always take.

    Where several are equally good the plainest, which is the first in the space's order.
    """
    points = np.stack([goal.of(task.accuracy(), task.bytes()) for task in tasks])
    z, _ = _standardised(points)
    known = ~np.isnan(z)
    mean = np.where(known, z, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return int(np.argmax(np.where(known.any(0), np.round(mean, 9), -np.inf)))


def _standardised(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """z-scores within each task (T, R), and the points that one is (T,)."""
    mean = np.nanmean(points, axis=1, keepdims=True)
    scale = np.nanstd(points, axis=1, keepdims=True)
    scale = np.where(scale > 1e-6, scale, 1.0)
    return np.clip((points - mean) / scale, -_CLIP, _CLIP), scale[:, 0]


def _groups(tasks: Sequence[Task]) -> list[str]:
    """What is left out together: a domain, or where there is one domain alone, a task."""
    domains = [task.domain for task in tasks]
    return domains if len(set(domains)) > 1 else [task.id for task in tasks]


def _quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], levels: Sequence[float]
) -> tuple[NDArray[np.float64], ...]:
    """Weighted quantiles, each (R,), of values (runs,) under weights (R, runs).

    >>> _quantiles(np.array([3.0, 1.0, 2.0]), np.array([[1, 1, 1.0]]) / 3, (0.5,))
    (array([2.]),)
    """
    order = np.argsort(values)
    total = np.cumsum(weights[:, order], axis=1)
    found = []
    for level in levels:
        at = np.minimum((total < level * total[:, -1:] - 1e-12).sum(1), len(values) - 1)
        found.append(values[order][at])
    return tuple(found)
