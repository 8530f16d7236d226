"""What a search leaves in its folder: ``frontier.json``, a recipe for each point, and the page."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto.atomic import new_file
from mapsto.errors import command
from mapsto.report import search_page
from mapsto.search import ablation
from mapsto.search.frontier import at_edges, nearest_to_limits
from mapsto.search.goals import resolved
from mapsto.search.importance import importances

if TYPE_CHECKING:
    from mapsto.search.find import Found
    from mapsto.search.goals import Limit
    from mapsto.search.holes import Hole
    from mapsto.search.trials import Trial

__all__ = ["SCHEMA", "hole_plain", "outcome_of", "save"]

SCHEMA = 1


def outcome_of(found: Found, folder: Path) -> dict[str, Any]:
    """``frontier.json``: the space, the points of the frontier with their recipes, every trial, and what was saved."""
    return _finite(_tree(found, folder))


def _finite(value: Any) -> Any:
    """Plain values as JSON has them: null for NaN and infinity, as of a metric that is no objective."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tree(found: Found, folder: Path) -> dict[str, Any]:
    points, best = found.frontier, found.best
    done = [trial for trial in found.trials if trial.state == "complete"]
    return {
        "schema": SCHEMA,
        "name": found.space.name,
        "objectives": [dataclasses.asdict(each) for each in found.goals.objectives],
        "limits": [dataclasses.asdict(each) for each in found.goals.limits],
        "holes": [hole_plain(hole) for hole in found.space.holes],
        "best": None if best is None else best.number,
        "frontier": [_point(trial, found, folder) for trial in points],
        "nearest": None if points else _nearest(found, folder),
        "ablation": ablation.rows(found.space, found.trials, found.goals),
        "importance": importances(found.trials, found.space.holes),
        "trials": [_row(trial) for trial in found.trials if trial.state != "waiting"],
        "saved": {
            "steps": sum(trial.steps for trial in done),
            "hits": sum(trial.hits for trial in done),
            "seconds": round(sum(trial.saved for trial in done), 1),
        },
        "warnings": list(found.said),
    }


def save(found: Found, folder: Path) -> dict[str, Any]:
    """Write it all; gives the outcome."""
    outcome = outcome_of(found, folder)
    nearest = None if outcome["nearest"] is None else int(outcome["nearest"]["trial"])
    for trial in (*found.frontier, *(each for each in found.trials if each.number == nearest)):
        with new_file(_recipe_file(trial, folder)) as file:
            file.write_text(trial.recipe, encoding="utf-8")
    with new_file(folder / "frontier.html") as file:
        file.write_text(search_page.render(outcome), encoding="utf-8")
    with new_file(folder / "frontier.json") as file:
        file.write_text(json.dumps(outcome, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return outcome


def _recipe_file(trial: Trial, folder: Path) -> Path:
    return folder / "recipes" / f"trial_{trial.number:03d}.yaml"


def _point(trial: Trial, found: Found, folder: Path) -> dict[str, Any]:
    file = _recipe_file(trial, folder)
    return {
        "trial": trial.number,
        "holes": trial.holes,
        "values": list(trial.values),
        "resolved": {name: resolved(name, trial.metrics, trial.aliases) for name in _names(found)},
        "metrics": dict(trial.metrics),
        "recipe": str(file.relative_to(folder)),
        "command": command("mapsto run {recipe}", *found.options, recipe=file),
    }


def _names(found: Found) -> list[str]:
    return [each.metric for each in (*found.goals.objectives, *found.goals.limits)]


def _nearest(found: Found, folder: Path) -> dict[str, Any] | None:
    """The trial that comes nearest to the limits, by how much it misses each, and what it would take."""
    trial = nearest_to_limits(found.trials)
    if trial is None:
        return None
    metrics = {
        name: float(trial.metrics[resolved(name, trial.metrics, trial.aliases)]["value"]) for name in _names(found)
    }
    missed = [each for each in found.goals.limits if each.miss(metrics[each.metric])]
    said = [
        f"{each.metric} is {_figure(metrics[each.metric])}, not {each.goal}, {_share(each.miss(metrics[each.metric]))} beyond"
        for each in missed
    ]
    edges = [
        {"hole": hole.name, "end": end, "value": trial.holes[hole.name]}
        for hole, end in at_edges(trial, found.space.holes)
    ]
    ends = [f"{each['hole']} is at its {each['end']} end, {each['value']:.4g}" for each in edges]
    bounds = " or ".join(f"{each.metric} {each.goal[0]}= {_bound(metrics[each.metric], each)}" for each in missed)
    take = f"widen {'its range' if len(ends) == 1 else 'these ranges'}, or " if ends else ""
    said.append(
        f"{', '.join(ends)}: {take}allow {bounds}" if ends else f"allow {bounds}, or give the space smaller options"
    )
    return {
        "trial": trial.number,
        "misses": dict(trial.misses),
        "holes": trial.holes,
        "edges": edges,
        "recipe": str(_recipe_file(trial, folder).relative_to(folder)),
        "command": command("mapsto run {recipe}", *found.options, recipe=_recipe_file(trial, folder)),
        "said": f"the nearest is trial {trial.number}: {'; '.join(said)}",
    }


def _figure(value: float) -> str:
    """A figure as it is written: whole numbers whole, others with four digits."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _share(miss: float) -> str:
    return f"{100 * miss:.3g} %" if miss < 10 else f"{miss:,.0f} times the bound"


def _bound(value: float, limit: Limit) -> str:
    """The closest bound of few digits that the value keeps."""
    if value.is_integer() or value == 0:
        return _figure(value)
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
    rounded = math.ceil(value / unit) if limit.goal.startswith("<") else math.floor(value / unit)
    return f"{rounded * unit:.6g}"


def _row(trial: Trial) -> dict[str, Any]:
    fields = (
        "number",
        "state",
        "holes",
        "values",
        "misses",
        "error",
        "steps",
        "hits",
        "seconds",
        "saved",
        "again",
        "role",
    )
    row = {name: getattr(trial, name) for name in fields}
    if trial.state in ("failed", "stopped"):
        row["recipe"] = trial.recipe
    return row


def hole_plain(hole: Hole) -> dict[str, Any]:
    """A hole as JSON has it."""
    allowed = (
        {"options": list(hole.options)}
        if hole.kind != "range"
        else {"low": hole.low, "high": hole.high, "log": hole.log}
    )
    return {"name": hole.name, "kind": hole.kind, **allowed, "default": hole.default}
