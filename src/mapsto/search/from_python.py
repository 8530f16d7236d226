"""A search from Python: holes of a recipe's tree, and the search itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapsto.recipe.reader import recipe_file
from mapsto.search import outcome
from mapsto.search.find import Found, Observer, find, place_for
from mapsto.search.goals import parse_limit, parse_objective
from mapsto.search.recipe_text import recipe_text
from mapsto.search.settings import settings_of
from mapsto.search.space import parse_space
from mapsto.search.worker import Job

__all__ = ["choice", "range", "run"]


def choice(*options: Any, default: Any = None, **named: Any) -> dict[str, Any]:
    """One of several values, or of several named ones, such as lists of steps.

    >>> choice(16, 32), choice(light=[{"quantize.bf16": {}}], none=[])
    ({'choice': [16, 32]}, {'choice': {'light': [{'quantize.bf16': {}}], 'none': []}})
    """
    hole: dict[str, Any] = {"choice": dict(named) if named else list(options)}
    return hole if default is None else {**hole, "default": default}


def range(  # as recipes call it
    low: float, high: float, *, log: bool = False, step: float | None = None, default: float | None = None
) -> dict[str, Any]:
    """A number from `low` to `high`, a whole one where both are.

    >>> range(0.001, 0.1, log=True)
    {'range': [0.001, 0.1], 'log': True}
    """
    more = {"log": log or None, "step": step, "default": default}
    return {"range": [low, high], **{name: value for name, value in more.items() if value is not None}}


def run(
    recipe: str | Path | Mapping[str, Any],
    *,
    objectives: Sequence[str] = (),
    limits: Sequence[str] = (),
    trials: int | None = None,
    minutes: float | None = None,
    sampler: str | None = None,
    halving: Mapping[str, Any] | None = None,
    first: Sequence[Mapping[str, Any]] = (),
    ablate: bool = True,
    out: str | Path = "runs/search",
    storage: str | None = None,
    store: str | None = None,
    workers: int = 1,
    threads: int | None = None,
    seed: int = 0,
    quick: bool = False,
    observer: Observer | None = None,
) -> Found:
    """Search a recipe with holes: a file, the name of a shipped one, or its tree. The same again goes on.

    Parameters
    ----------
    objectives, limits
        As the command takes them: ``accuracy:max``, ``latency<=0.5ms``; by default the recipe's own.
    first
        Holes to try before the sampler chooses any.
    observer
        Hears what the search does.

    Returns
    -------
    Found
        Its trials, `frontier` and `best`; the same is written into `out`.
    """
    folder = Path(out)
    text, name = (recipe_text(dict(recipe)), "recipe") if isinstance(recipe, Mapping) else recipe_file(recipe)
    where = "recipe" if isinstance(recipe, Mapping) else str(recipe)
    wanted = [parse_objective(each) for each in objectives]
    bounds = [parse_limit(each) for each in limits]
    given: dict[str, Any] = {
        "objectives": [{"metric": each.metric, "goal": each.goal} for each in wanted] or None,
        "limits": [{"metric": each.metric, "limit": each.goal} for each in bounds] or None,
        "trials": trials,
        "minutes": minutes,
        "sampler": sampler,
        "halving": None if halving is None else dict(halving),
    }
    search = {key: value for key, value in given.items() if value is not None}
    settings = settings_of(parse_space(text, where=where, name=name, quick=quick, given=search), search)
    place = place_for(folder, sampler=settings.sampler, storage=storage)
    job = Job(
        recipe=text,
        where=where,
        name=name,
        quick=quick,
        search=search,
        storage=place.storage,
        sampler=place.sampler,
        seed=seed,
        store=store,
        numerics={} if threads is None else {"threads": threads},
        until=None if settings.minutes is None else time.time() + 60 * settings.minutes,
    )
    found = find(job, observer=observer, first=first, workers=workers, ablate=ablate)
    outcome.save(found, folder)
    return found
