"""Search a recipe's space: trials by one worker or several, then what they came to."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapsto.errors import MissingExtra, SpecError, nearest
from mapsto.run.contents import names_of
from mapsto.run.result import Listener
from mapsto.search.ablation import ablated, variants
from mapsto.search.frontier import best, frontier
from mapsto.search.goals import Goals, said_of_test_data, unknown_reports
from mapsto.search.holes import same
from mapsto.search.optuna_trials import is_optuna
from mapsto.search.parallel import run_processes, run_ray
from mapsto.search.samplers import SAMPLERS as BUILT_IN
from mapsto.search.settings import SearchSettings, settings_of
from mapsto.search.space import Space
from mapsto.search.trials import Trial, Trials, counted
from mapsto.search.worker import Job, open_trials, work

__all__ = ["Found", "Observer", "Place", "Plan", "checked", "find", "place_for", "trials_of"]


class Observer(Listener):
    """Hears what a search does."""

    def said(self, text: str) -> None:
        """Something that the user has to know."""

    def planned(self, total: int, done: int) -> None:
        """So many trials are to be done, and some are already."""

    def began(self, trial: Trial) -> None:
        """A trial begins."""

    def ended(self, trial: Trial) -> None:
        """A trial has come to its end, well or not."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    space: Space
    goals: Goals
    trials: tuple[Trial, ...]
    said: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Of ``mapsto run``, with which a trial's recipe is found in the store: threads are part of its keys."""

    @property
    def frontier(self) -> list[Trial]:
        """The trials within the limits that no other dominates."""
        return frontier(self.trials, self.goals)

    @property
    def best(self) -> Trial | None:
        """The trial within the limits that is best in the first objective."""
        return best(self.trials, self.goals)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search that has been checked: nothing is known to be wrong with it."""

    space: Space
    settings: SearchSettings
    said: tuple[str, ...] = field(default=())


def checked(space: Space, search: Mapping[str, Any]) -> Plan:
    """A space with the settings of its recipe and those that are given. Raises `SpecError` for what can be known before anything runs."""
    settings = settings_of(space, search)
    goals = settings.goals
    if not goals.objectives:
        raise SpecError(
            "there is no objective",
            where=space.where,
            hint="give --objective accuracy:max, or in the recipe search: {objectives: [{metric: …, goal: maximize}]}",
        )
    candidate = space.at({})
    unknown = list(unknown_reports(goals, candidate.recipe, candidate.aliases))
    others = [space.at(holes) for holes in space.samples()] if unknown else []
    for other in others:  # what a step of one branch reports is reported by some recipes
        wrong = set(unknown_reports(goals, other.recipe, other.aliases))
        unknown = [each for each in unknown if each.split(" (")[0] in {text.split(" (")[0] for text in wrong}]
    if settings.halving is not None:
        steps = sorted(set(names_of(candidate.recipe.steps)))
        if settings.halving.step not in steps:
            unknown.append(
                f"halving: there is no step '{settings.halving.step}' ({nearest(settings.halving.step, steps)})"
            )
    if unknown:
        raise SpecError("; ".join(unknown), where=space.where)
    said = (*space.said, *said_of_test_data(goals, candidate.recipe, candidate.aliases))
    return Plan(space=space, settings=settings, said=said)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where trials are kept, by which sampler they are chosen, and what there is to say of both."""

    storage: str
    sampler: str
    said: str = ""


def place_for(folder: Path, *, sampler: str | None = None, storage: str | None = None) -> Place:
    """Where the trials of a search go: where they are already, else as the extra ``search`` allows.

    Raises `SpecError` for a sampler that does not go with the storage, `MissingExtra` for one that needs Optuna.
    """
    has_optuna = importlib.util.find_spec("optuna") is not None
    file, database = folder / "trials.jsonl", folder / "trials.db"
    by_us = sampler == "evolution" or not has_optuna or (file.exists() and not database.exists())
    if storage is None:
        storage = str(file) if by_us else f"sqlite:///{database}"
    if is_optuna(storage):
        if not has_optuna:
            raise MissingExtra("optuna", "search", where="--storage")
        if sampler == "evolution":
            raise SpecError(
                "the sampler evolution keeps its trials in a file of JSON lines",
                where=storage,
                hint="give --storage FILE.jsonl, or --sampler tpe",
            )
        return Place(storage=storage, sampler=sampler or "tpe")
    if sampler in ("tpe", "nsga2") and has_optuna:
        raise SpecError(
            f"the sampler {sampler} is Optuna's, and this file is not",
            where=storage,
            hint="give another --out or --storage, or --sampler evolution",
        )
    said = (
        ""
        if has_optuna
        else "; TPE and NSGA-II, and databases for many workers, come with: pip install 'mapsto[search]'"
    )
    taken = sampler if sampler in BUILT_IN else "evolution"
    return Place(storage=storage, sampler=taken, said=f"the sampler is {taken}{said}" if said else "")


def find(
    job: Job,
    *,
    observer: Observer | None = None,
    first: Sequence[Mapping[str, Any]] = (),
    workers: int = 1,
    ray: bool = False,
    ablate: bool = True,
) -> Found:
    """Do the trials of a search that are not done yet; with those that are, what they came to.

    Parameters
    ----------
    first
        Holes to try before the sampler chooses any, as an advisor proposes them.
    workers, ray
        How many processes work at a time; with `ray` they are its tasks, on its machines.
    ablate
        Whether the best recipe is run again with each optional step left out and each hole at its default.

    Raises
    ------
    SpecError
        The space, its settings or the kept trials do not fit; an objective is reported by no step; all trials failed.
    DataError, StoreError
        A trial failed of what every other one would fail of too.
    """
    observer = observer or Observer()
    space = job.space()
    plan = checked(space, job.search)
    for text in plan.said:
        observer.said(text)
    trials = open_trials(job, space, plan.settings)
    lost = trials.take_on_lost()
    if lost:
        observer.said(f"{len(lost)} trials of workers that died are taken up again")
    _enqueue(trials, space, first)
    observer.planned(plan.settings.trials, counted([trial for trial in trials.all() if trial.state != "running"]))
    with _told_when_over(job.until, observer):
        if ray:
            run_ray(job, workers, trials, observer.ended)
        elif workers > 1:
            run_processes(job, workers, trials, observer.ended)
        else:
            work(job, listener=observer, on_begin=observer.began, on_end=observer.ended)
    goals = plan.settings.goals
    chosen = ablated(trials.all(), goals) if ablate and (job.until is None or time.time() < job.until) else None
    if chosen is not None:
        tried = [trial.holes for trial in trials.all() if trial.state in ("complete", "failed", "waiting")]
        for variant in variants(space, chosen):
            if not any(same(variant.holes, holes) for holes in tried):
                trials.enqueue(variant.holes, role="ablation")
        work(job, listener=observer, on_begin=observer.began, on_end=observer.ended, queue_only=True)
    threads = job.numerics.get("threads")
    options = () if threads is None else ("--threads", str(threads))
    found = Found(space=space, goals=goals, trials=tuple(trials.all()), said=plan.said, options=options)
    if job.until is not None and not any(trial.state != "waiting" for trial in found.trials):
        raise SpecError("no trial began within the minutes given", where=space.where, hint="give more minutes")
    _require_one(found)
    return found


@contextmanager
def _told_when_over(until: float | None, observer: Observer) -> Generator[None]:
    """Within the block it is said when the time is over: a trial that runs is not stopped."""
    if until is None or until <= time.time():
        yield
        return
    text = "the minutes are over: no trial begins any more, and what runs comes to its end"
    timer = threading.Timer(min(until - time.time(), threading.TIMEOUT_MAX), observer.said, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def trials_of(job: Job) -> list[Trial]:
    """The trials of a search, finished or not, with their holes and metrics: `mapsto.search.trials.finished` picks those with values."""
    space = job.space()
    return open_trials(job, space, settings_of(space, job.search)).all()


def _enqueue(trials: Trials, space: Space, first: Sequence[Mapping[str, Any]]) -> None:
    """Put proposed trials in the queue, unless an earlier run of the command has."""
    there = sum(trial.role == "first" and trial.again is None for trial in trials.all())
    for holes in first[there:]:
        space.check(holes)
        trials.enqueue(holes, role="first")


def _require_one(found: Found) -> None:
    """Raises `SpecError` where all trials failed."""
    failed = [trial for trial in found.trials if trial.state == "failed"]
    if failed and not any(trial.state == "complete" for trial in found.trials):
        errors = list(dict.fromkeys(trial.error for trial in failed))
        raise SpecError(
            f"{f'all {len(failed)} trials' if len(failed) > 1 else 'the only trial'} failed: {errors[0]}"
            + (f" (and {len(errors) - 1} other errors)" if errors[1:] else ""),
            where=found.space.where,
            hint="run one of their recipes by itself, or mend the space",
        )
