"""A worker of a search: takes one trial after another, runs it over the store, and writes down what it came to."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapsto.context import Numerics
from mapsto.errors import DataError, MapstoError, SpecError, StepError, StoreError, is_environment_error
from mapsto.kinds import Dataset, Tasks
from mapsto.run.executor import execute
from mapsto.run.result import Listener, RunResult, path_of
from mapsto.run.stopping import ends_on_sigterm
from mapsto.search.goals import Goals, reports_in, unknown_reports
from mapsto.search.halving import Halted, Rungs, UnknownMetric, promotable
from mapsto.search.settings import SearchSettings, settings_of
from mapsto.search.space import Candidate, Space, parse_space
from mapsto.search.trials import Identity, Trial, Trials, me
from mapsto.store import Store

__all__ = ["Job", "main", "metrics_of", "open_trials", "work"]

_BEAT = 15.0
"""Seconds between signs of life."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker has to know, all of it plain: it may be another process, or on another machine."""

    recipe: str
    """The recipe with holes as YAML."""
    where: str = "recipe"
    name: str = "recipe"
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """``label.field`` → value."""
    quick: bool = False
    search: dict[str, Any] = field(default_factory=dict[str, Any])
    """What stands in the place of entries of the recipe's section ``search``."""
    storage: str = ""
    sampler: str = "evolution"
    seed: int = 0
    store: str | None = None
    numerics: dict[str, Any] = field(default_factory=dict[str, Any])
    until: float | None = None
    """Seconds of the epoch after which no trial begins."""
    number: int = 0
    """Of the worker."""
    trust: list[str] = field(default_factory=list[str])
    """Modules whose factories may be imported."""

    def space(self) -> Space:
        """The space of its recipe."""
        return parse_space(
            self.recipe, where=self.where, name=self.name, settings=self.settings, quick=self.quick, given=self.search
        )


def open_trials(job: Job, space: Space, settings: SearchSettings) -> Trials:
    """The trials of a job, where its storage keeps them. Raises `SpecError` where those are of another search."""
    from mapsto.search.optuna_trials import OptunaTrials, is_optuna
    from mapsto.search.trial_file import TrialFile

    goals = settings.goals
    identity = Identity(
        space=space.identity(),
        objectives=tuple((each.metric, each.goal) for each in goals.objectives),
        limits=tuple((each.metric, each.goal) for each in goals.limits),
        seed=job.seed,
    )
    signs = [each.sign for each in goals.objectives]
    if is_optuna(job.storage):
        return OptunaTrials(job.storage, space, identity, sampler=job.sampler, signs=signs, worker=job.number)
    return TrialFile(Path(job.storage), space, identity, sampler=job.sampler, signs=signs, worker=job.number)


def work(
    job: Job,
    *,
    listener: Listener | None = None,
    on_begin: Callable[[Trial], None] = lambda trial: None,
    on_end: Callable[[Trial], None] = lambda trial: None,
    queue_only: bool = False,
) -> None:
    """Do trials until there are none left to do.

    Parameters
    ----------
    on_begin, on_end
        Told of each trial.
    queue_only
        Whether only waiting trials are done, and none is made.

    Raises
    ------
    SpecError
        The first trial has run, and there is no metric of an objective's or a limit's name, or of halving's.
    DataError, StoreError
        A trial failed of what every other one would fail of too; the same command takes it up again.
    """
    space = job.space()
    settings = settings_of(space, job.search)
    trials, store = open_trials(job, space, settings), Store(job.store)
    numerics = Numerics(**job.numerics)
    while job.until is None or time.time() < job.until:
        if (
            not queue_only
            and settings.halving is not None
            and (better := promotable(trials.all(), settings.halving)) is not None
        ):
            trials.enqueue(better.holes, role=better.role, again=better.number)
        trial = trials.begin(0 if queue_only else settings.trials)
        if trial is None:
            return
        on_begin(trial)
        try:
            with _kept_alive(trials, trial, job.number):
                changes = _done(trial, space, settings, trials, store=store, numerics=numerics, listener=listener)
        except UnknownMetric as error:
            trials.end(trial.number, "failed", error=str(error))
            raise error.error from None
        state = changes.pop("state")
        trials.end(trial.number, state, **changes)
        on_end(dataclasses.replace(trial, state=state, **{**changes, "values": tuple(changes.get("values", ()))}))


def main() -> None:
    """A worker as a process of its own: a job as JSON on standard input, what went wrong on standard error."""
    from mapsto import kinds

    ends_on_sigterm()
    _end_with_parent()
    job = Job(**json.loads(sys.stdin.read()))
    try:
        with kinds.trusting(*job.trust):
            work(job)
    except MapstoError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    """From now on this process ends where the one that started it is gone: a search that was killed leaves no workers behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    if hasattr(os, "getppid") and sys.platform != "win32":
        threading.Thread(target=watch, daemon=True).start()


def _done(
    trial: Trial,
    space: Space,
    settings: SearchSettings,
    trials: Trials,
    *,
    store: Store,
    numerics: Numerics,
    listener: Listener | None,
) -> dict[str, Any]:
    """The fields of a trial that has come to its end, well or not."""
    began = time.monotonic()
    changes: dict[str, Any] = {"state": "failed"}
    candidate: Candidate | None = None
    try:
        candidate = space.at(trial.holes)
        changes |= {"recipe": candidate.text, "aliases": dict(candidate.aliases)}
        heard = listener or Listener()
        if settings.halving is not None and trial.role != "ablation":
            heard = Rungs(settings.halving, trials, trial, heard)
        run = execute(candidate.recipe, store=store, numerics=numerics, listener=heard)
        changes |= _account(run, candidate, settings.goals, trials, space)
    except Halted as halted:
        changes |= {"state": "stopped", "error": str(halted)}
    except MapstoError as error:
        if (reason := _of_every_trial(error, space, candidate)) is not None:
            _give_back(trial, trials, str(error))
            raise reason from error
        changes["error"] = str(error)
    except UnknownMetric:
        raise
    except BaseException:
        # Ctrl-C, SIGTERM or a fault of ours: the same command takes it up again at once.
        _give_back(trial, trials, "stopped")
        raise
    return {**changes, "seconds": round(time.monotonic() - began, 3)}


def _give_back(trial: Trial, trials: Trials, why: str) -> None:
    """End a trial without a result; the same command takes it up again."""
    trials.end(trial.number, "lost", error=why)
    trials.enqueue(trial.holes, role=trial.role, again=trial.number)


def _of_every_trial(error: MapstoError, space: Space, candidate: Candidate | None) -> MapstoError | None:
    """What every other trial would fail of too: data that no hole changes, the store, the disk. None where it is this trial's own."""
    cause = error.__cause__ if isinstance(error, StepError) and error.__cause__ is not None else error
    hint = "no trial can do without it; mend it, and the same command goes on"
    if isinstance(cause, StoreError) or (isinstance(cause, OSError) and is_environment_error(cause)):
        return StoreError(str(error), where=space.where, hint=hint)
    if not isinstance(cause, DataError) or candidate is None:
        return None
    for label in space.fixed_data:
        data = candidate.recipe.data.get(label)
        if not isinstance(data, (Dataset, Tasks)):
            continue
        try:
            data.fingerprint()
            data.open()
        except MapstoError as reason:
            if str(reason) in str(error):
                return DataError(f"data '{label}': {reason}", where=space.where, hint=hint)
    return None


def _account(run: RunResult, candidate: Candidate, goals: Goals, trials: Trials, space: Space) -> dict[str, Any]:
    """What a run came to. Raises `SpecError` where it has no metric of an objective's name, `StepError` where one is NaN or infinite."""
    metrics = metrics_of(run)
    hits = [step for step in run.steps if step.hit]
    try:
        values, misses = goals.values(metrics, candidate.aliases), goals.misses(metrics, candidate.aliases)
    except SpecError as error:
        if _may_be_elsewhere(space, goals) or any(trial.state == "complete" for trial in trials.all()):
            raise
        raise UnknownMetric(error) from error
    for objective, value in zip(goals.objectives, values, strict=True):
        if not math.isfinite(value):
            raise StepError(f"the objective '{objective.metric}' is {value}, no finite number")
    beyond = [name for name, miss in misses.items() if not math.isfinite(miss)]
    if beyond:
        raise StepError(f"what is limited by '{beyond[0]}' is no finite number")
    return {
        "state": "complete",
        "values": list(values),
        "misses": misses,
        "metrics": metrics,
        "steps": len(run.steps),
        "hits": len(hits),
        "saved": round(sum(step.seconds for step in hits), 3),
    }


def _may_be_elsewhere(space: Space, goals: Goals) -> bool:
    """Whether other recipes of the space make other reports, so that a metric which one has not may be there."""
    made: set[frozenset[tuple[str, str]]] = set()
    for holes in space.samples():
        candidate = space.at(holes)
        if any(unknown_reports(goals, candidate.recipe, candidate.aliases)):
            return True
        reports = reports_in(candidate.recipe)
        made.add(frozenset((path.rpartition(".")[2], each.name) for path, each in reports.items()))
    return len(made) > 1


def metrics_of(run: RunResult) -> dict[str, dict[str, Any]]:
    """Every metric of every report of a run, in the order of its steps."""
    found: dict[str, dict[str, Any]] = {}
    for step in run.steps:
        if step.kind_out != "Report":
            continue
        report = run.store.load(step.digest, measured=step.measured)
        for name, metric in report.metrics.items():
            found[f"{path_of(run.steps, step)}.{name}"] = _plain(metric)
    return found


def _plain(metric: Any) -> dict[str, Any]:
    """A metric as JSON has it."""
    low, high = metric.low, metric.high
    if metric.ci95 is not None:
        low = metric.value - metric.ci95 if low is None else low
        high = metric.value + metric.ci95 if high is None else high
    parts = {"value": float(metric.value), "unit": metric.unit or None, "low": low, "high": high}
    return {name: part for name, part in parts.items() if part is not None}


@contextmanager
def _kept_alive(trials: Trials, trial: Trial, number: int) -> Generator[None]:
    """Within the block a thread gives signs of life, by which workers of other machines know that nobody has to take the trial on."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT):
            with suppress(MapstoError, OSError):
                trials.note(trial.number, worker=me(number))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
