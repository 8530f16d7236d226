"""What a search leaves in its folder: ``frontier.json``, a recipe for each point, and the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.atomic import new_file
from mapsto.errors import command

if TYPE_CHECKING:
    from mapsto.search.find import Found
    from mapsto.search.holes import Hole
    from mapsto.search.trials import Trial

__all__ = ["SCHEMA", "hole_plain", "outcome_of", "save"]

SCHEMA = 1


def outcome_of(found: Found, folder: Path) -> dict[str, Any]:
    """``frontier.json``: the space, the points of the frontier with their recipes, every trial, and what was saved."""
    points, best = found.frontier, found.best
    done = [trial for trial in found.trials if trial.state == "complete"]
    return {
        "schema": SCHEMA,
        "name": found.space.name,
        "objectives": [dataclasses.asdict(each) for each in found.goals.objectives],
        "limits": [dataclasses.asdict(each) for each in found.goals.limits],
        "holes": [hole_plain(hole) for hole in found.space.holes],
        "best": None if best is None else best.number,
        "frontier": [_point(trial, folder) for trial in points],
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
    for trial in found.frontier:
        with new_file(_recipe_file(trial, folder)) as file:
            file.write_text(trial.recipe, encoding="utf-8")
    with new_file(folder / "frontier.json") as file:
        file.write_text(json.dumps(outcome, indent=2, ensure_ascii=False), encoding="utf-8")
    return outcome


def _recipe_file(trial: Trial, folder: Path) -> Path:
    return folder / "recipes" / f"trial_{trial.number:03d}.yaml"


def _point(trial: Trial, folder: Path) -> dict[str, Any]:
    file = _recipe_file(trial, folder)
    return {
        "trial": trial.number,
        "holes": trial.holes,
        "values": list(trial.values),
        "metrics": dict(trial.metrics),
        "recipe": str(file.relative_to(folder)),
        "command": command("mapsto run {recipe}", recipe=file),
    }


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
