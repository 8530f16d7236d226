"""The trials of ``mapsto advise --trials``: drawn as they go, and what they came to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.cli.app import print_note, print_text
from mapsto.cli.progress import Progress
from mapsto.cli.run import writable_at_the_end
from mapsto.errors import DataError, command

if TYPE_CHECKING:
    from mapsto.search.advisor.advice import Advice, Asked
    from mapsto.search.advisor.goal import Goal
    from mapsto.search.advisor.runs import Runs, Task
    from mapsto.search.advisor.trying import Trial
    from mapsto.store import Store

__all__ = ["size_text", "tried"]


def tried(
    question: Asked,
    task: Task,
    others: Sequence[Runs],
    place: Store,
    *,
    goal: Goal,
    model: str | None,
    missing: Mapping[str, str],
    trials: int,
    minutes: float | None,
    threads: int | None,
    folder: Path,
    quiet: bool,
) -> dict[str, Any]:
    """Try recipes, and run the best one into `folder` with its package; gives what ``--json`` prints and ``trials.json`` holds."""
    from mapsto.context import Numerics
    from mapsto.search.advisor.trying import best, frontier, try_recipes

    numerics = Numerics() if threads is None else Numerics(threads=threads)
    listener = Progress(enabled=not quiet)
    with writable_at_the_end(folder), listener:
        found = try_recipes(
            question,
            task,
            others,
            store=place,
            trials=trials,
            folder=folder,
            goal=goal,
            model=model,
            until=None if not minutes else time.time() + 60 * minutes,
            missing=missing,
            numerics=numerics,
            listener=listener,
            on_begin=lambda advised: None if quiet else _began(advised),
            on_end=lambda trial: None if quiet else _ended(trial),
        )
        chosen = best(found, goal)
        if chosen is None:
            raise _none(found, goal)
        _run_best(question, chosen, place, folder, numerics, listener)
    on_frontier = frontier(found)
    told: dict[str, Any] = {
        "objective": goal.text,
        "best": chosen.holes,
        "trials": [_tree(trial, trial in on_frontier) for trial in found],
        "recipe": str(folder / "recipe.yaml"),
        "report": str(folder / "report.html"),
        "command": command("mapsto run {recipe}", recipe=folder / "recipe.yaml"),
    }
    _write(folder, told)
    if not quiet:
        _print(found, chosen, told, folder)
    return told


def _run_best(question: Asked, chosen: Trial, place: Store, folder: Path, numerics: Any, listener: Progress) -> None:
    """The best recipe once more, of whose steps all but the package are in the store."""
    from mapsto.kinds import Package
    from mapsto.recipe.reader import parse_recipe
    from mapsto.report import build as reports
    from mapsto.run.executor import execute
    from mapsto.search.advisor import space

    text = space.recipe(question.kind, chosen.holes, question.data, export=question.kind != "stream")
    result = execute(parse_recipe(text, where=str(folder)), store=place, numerics=numerics, listener=listener)
    value = result.value() if result.result.kind == "Package" else None
    reports.save(reports.build(result), folder, recipe_yaml=text, package=value if isinstance(value, Package) else None)
    (folder / "trial.yaml").unlink(missing_ok=True)


def _none(found: Sequence[Trial], goal: Goal) -> DataError:
    """That no trial may be taken, and the one that comes nearest."""
    done = [trial for trial in found if math.isfinite(trial.accuracy)]
    if not done:
        first = next((trial.outcome.error for trial in found), "no trial has begun: --minutes are over")
        return DataError(
            f"no trial has come to its end: {first}", where="--trials", hint="give more --trials or --minutes"
        )
    near = min(done, key=lambda trial: trial.outcome.bytes)
    return DataError(
        f"no trial keeps the limit: the nearest has {near.outcome.bytes:,} bytes ({', '.join(near.holes.values())}), "
        f"and {goal.most_bytes:,.0f} are allowed",
        where="--limit",
        hint="raise it, or give more --trials",
    )


def _tree(trial: Trial, on_frontier: bool) -> dict[str, Any]:
    outcome = trial.outcome
    accuracy = outcome.validation if outcome.validation is not None else outcome.test
    return {
        "holes": trial.holes,
        "accuracy": accuracy,
        "of": outcome.validation_n,
        "bytes": outcome.bytes if not outcome.failed else None,
        "error": outcome.error or None,
        "foretold": None if trial.foretold is None else [round(each, 2) for each in trial.foretold],
        "seconds": round(trial.seconds, 2),
        "hits": trial.hits,
        "steps": trial.steps,
        "on_frontier": on_frontier,
    }


def _write(folder: Path, told: Mapping[str, Any]) -> None:
    import json

    from mapsto.atomic import new_file

    with new_file(folder / "trials.json") as file:
        file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _began(advised: Advice) -> None:
    first = advised.proposals[0]
    print_note(
        f"trial {advised.trials + 1}: {', '.join(first.holes.values())}; {first.low:.0f} to {first.high:.0f} % are expected"
    )


def _ended(trial: Trial) -> None:
    if trial.outcome.failed:
        print_note(f"it failed: {trial.outcome.error}")
        return
    print_note(
        f"{trial.accuracy:.1f} % of the held-out examples are right, {size_text(trial.outcome.bytes)}, {trial.seconds:.1f} s, "
        f"{trial.hits} of {trial.steps} steps from the store"
    )


def _print(found: Sequence[Trial], chosen: Trial, told: Mapping[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", ", ".join(chosen.holes), "held-out right", "expected", "size", "")
    for number, (trial, row) in enumerate(zip(found, told["trials"], strict=True), 1):
        foretold = "" if trial.foretold is None else f"{trial.foretold[1]:.0f} to {trial.foretold[2]:.0f} %"
        marks = [word for word, holds in (("best", trial is chosen), ("frontier", row["on_frontier"])) if holds]
        right = "failed" if trial.outcome.failed else f"{trial.accuracy:.1f} %"
        size = "" if trial.outcome.failed else size_text(trial.outcome.bytes)
        table.add_row(str(number), ", ".join(trial.holes.values()), right, foretold, size, ", ".join(marks))
    Console(highlight=False).print(table)
    print_text(
        f"best by {told['objective']}; the held-out examples chose it, so that new ones will be right less often"
    )
    print_text(
        f"wrote {folder / 'report.html'}, the recipe beside it and what the trials came to; run it: {told['command']}"
    )


def size_text(count: float) -> str:
    """Bytes as a reader counts them.

    >>> size_text(1_234_567), size_text(50)
    ('1.2 MB', '0.1 kB')
    """
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count / 1e3, 0.1):.1f} kB"
