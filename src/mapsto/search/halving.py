"""Successive halving by stopping a training: at each rung a trial goes on where it is among the best of those that came so far.

Asynchronous, since nobody waits: of n trials at a rung those may go on whose metric is among the best ⌊n/η⌋, at least one (Li et al., "A
System for Massively Parallel Hyperparameter Tuning", 2020). The checkpoint of a training that is stopped stays in the store; a trial that
is among the best once others have come is taken on from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mapsto.errors import SpecError, nearest
from mapsto.run.result import Listener, StepResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Block
    from mapsto.search.settings import Halving
    from mapsto.search.trials import Trial, Trials

__all__ = ["Halted", "Rungs", "UnknownMetric", "promotable"]


class Halted(Exception):
    """A trial was stopped at a rung; its training can go on from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)


class UnknownMetric(Exception):
    """A trial has run, and there is no metric of a name that the search needs: no other trial will have one."""

    def __init__(self, error: SpecError) -> None:
        super().__init__(str(error))
        self.error = error


def promotable(trials: Sequence[Trial], halving: Halving) -> Trial | None:
    """A trial that was stopped and is among the best of its rung by now, the furthest and best first."""
    taken_on = {trial.again for trial in trials}
    able = [
        (-rung, sign(halving) * trial.rungs[str(rung)], trial.number, trial)
        for trial in trials
        if trial.state == "stopped" and trial.rungs and trial.number not in taken_on
        for rung in [max(map(int, trial.rungs))]
        if _among_best(trial.rungs[str(rung)], _at(trials, rung), halving)
    ]
    return min(able)[-1] if able else None


def sign(halving: Halving) -> float:
    """What its metric is multiplied with to be minimised."""
    return -1.0 if halving.goal == "maximize" else 1.0


def _at(trials: Sequence[Trial], rung: int) -> list[float]:
    return [trial.rungs[str(rung)] for trial in trials if str(rung) in trial.rungs]


def _among_best(value: float, others: Sequence[float], halving: Halving) -> bool:
    """Whether a value is among the best 1/η of those at its rung, itself one of them."""
    if not math.isfinite(value):  # a training that has diverged
        return False
    ordered = sorted(sign(halving) * each if math.isfinite(each) else math.inf for each in others)
    return sign(halving) * value <= ordered[max(1, len(ordered) // halving.eta) - 1]


class Rungs(Listener):
    """Hears the log of one trial's training, and stops it at a rung where it is not among the best.

    Parameters
    ----------
    inner
        Who else hears the run.
    """

    def __init__(self, halving: Halving, trials: Trials, trial: Trial, inner: Listener) -> None:
        self._halving, self._trials, self._inner = halving, trials, inner
        self._number = trial.number
        self._total: int | None = None
        self._noted: dict[str, float] = {}
        self._logged: set[str] = set()
        self._passed = _passed(trials.all(), trial)
        self._stop = ""
        self.ends_well = inner.ends_well

    def advanced(self, step: StepResult, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if _names(step, self._halving.step):
            self._total = total
        self._inner.advanced(step, done, total, metrics)

    def logged(self, step: StepResult, n: int, metrics: Mapping[str, float]) -> None:
        self._inner.logged(step, n, metrics)
        if _names(step, self._halving.step):
            self._logged.update(metrics)
        if _names(step, self._halving.step) and self._halving.metric in metrics:
            self._reached(n, float(metrics[self._halving.metric]))

    def wants_stop(self, step: StepResult) -> bool:
        return (bool(self._stop) and _names(step, self._halving.step)) or self._inner.wants_stop(step)

    def finished(self, step: StepResult) -> None:
        self._inner.finished(step)
        if not _names(step, self._halving.step):
            return
        if step.hit and step.curves:
            self._read(step.curves)
        if (not step.hit or step.curves) and self._halving.metric not in self._logged and step.status != "stopped":
            self._refuse()
        if step.status == "stopped" and self._stop:
            raise Halted(self._stop)

    def started(self, step: StepResult) -> None:
        self._inner.started(step)

    def watched(self, step: StepResult, account: Callable[[], dict[str, Any]]) -> None:
        self._inner.watched(step, account)

    def answered(
        self, step: StepResult, start: int, block: Block, scores: NDArray[np.float64], classes: Sequence[str]
    ) -> None:
        self._inner.answered(step, start, block, scores, classes)

    def warned(self, step: StepResult, text: str) -> None:
        self._inner.warned(step, text)

    def noted(self, step: StepResult, text: str) -> None:
        self._inner.noted(step, text)

    def note(self, text: str) -> None:
        self._inner.note(text)

    def _reached(self, n: int, value: float, *, may_stop: bool = True) -> None:
        """Note each rung that a training has come to; the last item is none."""
        for rung, items in enumerate(self._items(), 1):
            key = str(rung)
            if n < items or key in self._noted or rung in self._passed:
                continue
            self._noted[key] = value
            self._trials.note(self._number, rungs=dict(self._noted))
            if may_stop and not _among_best(value, _at(self._trials.all(), rung), self._halving):
                self._stop = f"stopped at rung {rung}, after {n} items: {self._halving.metric} {value:.4g}"
                return

    def _refuse(self) -> None:
        """Raises `UnknownMetric`: without the metric no trial would ever be stopped, and nothing would say so."""
        known = sorted(self._logged - {"step"})
        raise UnknownMetric(
            SpecError(
                f"the log of step '{self._halving.step}' has no metric '{self._halving.metric}'",
                where="halving",
                hint=nearest(self._halving.metric, known, most=8) if known else "name a step that trains",
            )
        )

    def _items(self) -> list[int]:
        """After how many items each rung is."""
        rungs = self._halving.rungs
        if isinstance(rungs, list):
            return sorted(rungs)
        if self._total is None:
            return []
        return [max(1, round(self._total / self._halving.eta**power)) for power in range(rungs, 0, -1)]

    def _read(self, curves: Mapping[str, Any]) -> None:
        """The rungs of a training that was a hit, from its record."""
        columns: list[str] = list(curves["columns"])
        self._logged.update(columns)
        if self._halving.metric not in columns or not curves["rows"]:
            return
        at = columns.index(self._halving.metric)
        self._total = int(curves["rows"][-1][0])
        for row in curves["rows"]:
            if row[at] is not None:
                self._reached(int(row[0]), float(row[at]), may_stop=False)


def _names(step: StepResult, name: str) -> bool:
    return step.kind == "step" and name in (step.label, step.name)


def _passed(trials: Sequence[Trial], trial: Trial) -> set[int]:
    """The rungs that a trial has behind it, since it is another one taken on."""
    by_number = {each.number: each for each in trials}
    found: set[int] = set()
    again: int | None = trial.again
    while again is not None and again in by_number:
        found |= {int(rung) for rung in by_number[again].rungs}
        again = by_number[again].again
    return found
