"""Trials of advised recipes: each is chosen by what is known of other tasks and of the trials before it, run, and learnt from.

The list of runs in the store is all that is kept between two trials, so that a search that was killed goes on where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mapsto.atomic import new_file
from mapsto.context import Numerics
from mapsto.errors import DataError, MapstoError
from mapsto.recipe.reader import load_recipe
from mapsto.report.build import build
from mapsto.run.executor import execute
from mapsto.run.result import Listener
from mapsto.search.advisor import space
from mapsto.search.advisor.advice import Advice, Asked, advice, keep, known_runs
from mapsto.search.advisor.goal import Goal
from mapsto.search.advisor.learning import outcome_of
from mapsto.search.advisor.runs import Outcome, Runs, Task, merged
from mapsto.store import Store

__all__ = ["Trial", "best", "frontier", "try_recipes"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One advised recipe and what it came to on the data that were asked on."""

    holes: dict[str, str]
    outcome: Outcome
    foretold: tuple[float, float, float] | None = None
    """Accuracy in %, and the ends of the interval that was to hold it with 90 %; None of a trial of an earlier command."""
    seconds: float = 0.0
    hits: int = 0
    """Steps that came from the store, of `steps`."""
    steps: int = 0

    @property
    def accuracy(self) -> float:
        """Percent right of the examples that were held out; −inf of a failed run."""
        return self.outcome.judged("validation")


def try_recipes(
    question: Asked,
    task: Task,
    others: Sequence[Runs],
    *,
    store: Store,
    trials: int,
    folder: Path,
    goal: Goal | None = None,
    model: str | None = None,
    until: float | None = None,
    missing: Mapping[str, str] | None = None,
    numerics: Numerics | None = None,
    listener: Listener | None = None,
    on_begin: Callable[[Advice], None] = lambda advised: None,
    on_end: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Try what is advised until so many runs on these data are known; gives all of them, in the order in which they were tried.

    Parameters
    ----------
    others
        Lists of runs to lean on, beside the one of the store, to which each trial is added as it ends.
    trials
        Runs on these data in all: those that are known already count.
    until
        The time, as of `time.time`, after which no trial begins.
    folder
        Where the recipe of a trial is written, as ``trial.yaml``.

    Raises
    ------
    DataError
        Nothing is known of this kind of data, or each of the first three trials failed.
    """
    goal, listener = goal or Goal(), listener or Listener()
    new: dict[str, Trial] = {}
    while until is None or time.time() < until:
        own = known_runs(store)
        known = own.task(task)
        if len(known.runs) >= trials:
            break
        advised = advice(question, task, merged([own, *others]), goal=goal, count=1, model=model, missing=missing)
        proposal = advised.proposals[0]
        key = space.key_of(proposal.holes)
        if key in known.runs:
            listener.note(f"all {len(known.runs)} recipes that fit have been tried")
            break
        on_begin(advised)
        trial = _run(question, proposal.holes, store, folder, numerics, listener)
        trial = replace(trial, foretold=(proposal.accuracy, proposal.low, proposal.high))
        keep(store, [], [(task, key, trial.outcome)])
        new[key] = trial
        on_end(trial)
        if len(new) >= _FAILED_AT_ONCE and all(each.outcome.failed for each in new.values()):
            raise DataError(
                f"the first {len(new)} trials failed: {trial.outcome.error}",
                where=str(folder),
                hint="run the recipe of the last one by itself: trial.yaml",
            )
    known = known_runs(store).task(task)
    options = {space.key_of(holes): holes for holes in space.recipes(question.kind)}
    return [new.get(key) or Trial(holes=options[key], outcome=outcome) for key, outcome in known.runs.items()]


def best(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """The trial with most points on the held-out examples, of several the smallest; None where none keeps the limit."""
    fit = [trial for trial in trials if _points(trial, goal) > -math.inf]
    return max(fit, key=lambda each: (_points(each, goal), -each.outcome.bytes), default=None)


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """The trials than which no other is as accurate and as small, and better in one of the two; the smallest first."""
    found: list[Trial] = []
    for trial in sorted(trials, key=lambda each: (each.outcome.bytes, -each.accuracy)):
        if trial.accuracy > max((each.accuracy for each in found), default=-math.inf):
            found.append(trial)
    return found


_FAILED_AT_ONCE = 3
"""Trials after which a search ends where none has come to its end: something is wrong with the data."""


def _points(trial: Trial, goal: Goal) -> float:
    if not math.isfinite(trial.accuracy):
        return -math.inf
    found = goal.points(trial.accuracy, trial.outcome.bytes)
    return -math.inf if found is None else found


def _run(
    question: Asked,
    holes: dict[str, str],
    store: Store,
    folder: Path,
    numerics: Numerics | None,
    listener: Listener,
) -> Trial:
    """Run one recipe; a failure is its outcome."""
    file = folder / "trial.yaml"
    with new_file(file) as partial:
        partial.write_text(space.recipe(question.kind, holes, question.data), encoding="utf-8")
    began = time.monotonic()
    try:
        run = execute(load_recipe(file), store=store, numerics=numerics, listener=listener)
        found = outcome_of(build(run), question.kind, where=str(file))
    except MapstoError as error:
        return Trial(holes=holes, outcome=Outcome(error=str(error)[:300]), seconds=time.monotonic() - began)
    hits = sum(step.hit for step in run.steps)
    return Trial(holes=holes, outcome=found, seconds=time.monotonic() - began, hits=hits, steps=len(run.steps))
