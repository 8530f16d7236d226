"""``mapsto search``: a recipe with holes, and the best recipes that it stands for."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mapsto.atomic import new_file
from mapsto.cli.app import JsonOption, StoreOption, TrustOption, app, print_json, print_note, print_text
from mapsto.cli.progress import Screen
from mapsto.cli.run import settings_from, writable_at_the_end
from mapsto.errors import DomainError
from mapsto.search import outcome
from mapsto.search.find import Observer
from mapsto_runtime.shown import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mapsto.run.result import StepResult
    from mapsto.search.find import Plan
    from mapsto.search.trials import Trial

__all__ = ["SearchScreen", "searched"]

_MOST_TRIALS = 10_000
"""Where only the minutes end a search."""


@app.command()
def search(
    recipe: Annotated[str, typer.Argument(help="A recipe with holes: a file, or the name of a shipped recipe.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many recipes to try. [default: the recipe's, else 30]")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="No trial begins after so many minutes of this command; one that runs comes to its end."
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="A metric and where it is to go, as accuracy:max or small.cost.p50:min; may be repeated."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="A bound, as 'latency<=0.5ms' or 'small.cost.bytes<=200kB'; may be repeated."),
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, nsga2, random, grid or evolution. [default: tpe]")] = None,
    halving: Annotated[
        str | None,
        typer.Option(
            help="STEP:METRIC:min or STEP:METRIC:max: that step's training is stopped at a rung where it is not among the best."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="label.field=value, in every trial; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the frontier and its recipes.")] = Path("runs/search"),
    store: StoreOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch. [default: all cores]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler; the recipe has its own.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="The recipe's quick settings, in every trial.")] = False,
    storage: Annotated[
        str | None,
        typer.Option(help="Where the trials are kept: a file of JSON lines. [default: trials.jsonl in --out]"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time, each in a process.")] = 1,
    ray: Annotated[bool, typer.Option("--ray", help="The workers are tasks of Ray, on its machines.")] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate/--no-ablate", help="Run the best again with each step left out and each hole at its default."
        ),
    ] = True,
    trust: TrustOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Check the space and say what it holds; try nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fill the holes of a recipe: try recipes, and keep those that no other is better than.

    Trials that share steps compute them once. Killed, the same command goes on.

    Example: mapsto search search_digits --trials 12 --out runs/found
    """
    from mapsto import kinds
    from mapsto.recipe.reader import recipe_file
    from mapsto.search import goals
    from mapsto.search.find import checked, find, place_for
    from mapsto.search.settings import settings_of
    from mapsto.search.space import parse_space
    from mapsto.search.worker import Job

    objectives = [goals.parse_objective(each) for each in objective or []]
    limits = [goals.parse_limit(each) for each in limit or []]
    given: dict[str, Any] = {
        "objectives": [{"metric": each.metric, "goal": each.goal} for each in objectives] or None,
        "limits": [{"metric": each.metric, "limit": each.goal} for each in limits] or None,
        "trials": trials,
        "minutes": minutes or None,
        "sampler": sampler,
        "halving": None if halving is None else goals.parse_halving(halving),
    }
    text, name = recipe_file(recipe)
    used_threads = threads if threads is not None or workers == 1 else max(1, (os.cpu_count() or 1) // workers)
    with kinds.trusting(*(trust or [])), writable_at_the_end(out), SearchScreen(enabled=not as_json) as screen:
        loaded = settings_of(
            parse_space(text, where=recipe, name=name, given=given), {"sampler": sampler, "minutes": minutes or None}
        )
        place = place_for(out, sampler=loaded.sampler, storage=storage)
        if place.said:
            screen.said(place.said)
        job = Job(
            recipe=text,
            where=recipe,
            name=name,
            settings=settings_from(settings or []),
            quick=quick,
            search={key: value for key, value in given.items() if value is not None},
            storage=place.storage,
            sampler=place.sampler,
            seed=seed,
            store=store,
            trust=list(trust or []),
            numerics={} if used_threads is None else {"threads": used_threads},
            until=None if loaded.minutes is None else time.time() + 60 * loaded.minutes,
        )
        if plan:
            _print_plan(checked(job.space(), job.search), as_json)
            return
        found = find(job, observer=screen, workers=workers, ray=ray, ablate=ablate)
        written = outcome.save(found, out)
    if as_json:
        print_json(written)
    else:
        _print(written, out)
    nearest = written["nearest"]
    if nearest is not None:
        raise DomainError(
            f"no trial meets all limits; {nearest['said']}",
            where=recipe,
            hint=f"it is kept: {nearest['command']}; more --trials go on here, other limits in another --out, with steps from the store",
        )


def searched(
    text: str,
    folder: Path,
    *,
    first: Sequence[Mapping[str, Any]],
    trials: int | None,
    minutes: float | None,
    store: str | None,
    threads: int | None,
    trust: list[str] | None,
    seed: int,
    plan: bool,
    as_json: bool,
) -> Trial | None:
    """Search the space of a command that has written it: the best trial, or the nearest to the limits; None where it is only planned."""
    from mapsto.search.find import checked, find, place_for
    from mapsto.search.frontier import nearest_to_limits
    from mapsto.search.worker import Job

    with SearchScreen(enabled=not as_json) as screen:
        place = place_for(folder)
        job = Job(
            recipe=text,
            where=str(folder / "space.yaml"),
            name="compress",
            search={"trials": trials or _MOST_TRIALS},
            storage=place.storage,
            sampler=place.sampler,
            seed=seed,
            store=store,
            trust=list(trust or []),
            numerics={} if threads is None else {"threads": threads},
            until=None if not minutes else time.time() + 60 * minutes,
        )
        if plan:
            _print_plan(checked(job.space(), job.search), as_json)
            return None
        if place.said:
            screen.said(place.said)
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(folder / "space.yaml") as file:
            file.write_text(text, encoding="utf-8")
        found = find(job, observer=screen, first=first, ablate=False)
        written = outcome.save(found, folder)
    if not as_json:
        _print(written, folder)
        if written["nearest"] is not None:
            print_note(f"no trial meets all limits; {shown(written['nearest']['said'])}")
    return found.best or nearest_to_limits(found.trials)


class SearchScreen(Observer):
    """Draws a search on standard error: a line for each trial as it ends, and a bar with an estimate."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.console = Screen(stderr=True, quiet=not enabled, highlight=False)
        self.bars = Bars(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[step]}"),
            console=self.console,
            transient=True,
            disable=not enabled or not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.warnings: set[str] = set()

    def __enter__(self) -> SearchScreen:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def said(self, text: str) -> None:
        print_note(text)

    def planned(self, total: int, done: int) -> None:
        self.task = self.bars.add_task("trials", total=total, completed=done, step="")

    def warned(self, step: StepResult, text: str) -> None:
        if text not in self.warnings:  # trials read the same data, and would all say it
            self.warnings.add(text)
            print_note(f"{step.label or step.name}: {text}")

    def began(self, trial: Trial) -> None:
        if self.task is not None:
            self.bars.update(self.task, step=f"trial {trial.number}")

    def advanced(self, step: StepResult, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if self.task is not None:
            self.bars.update(
                self.task, step=escape(f"{step.label or step.name} {done}{f' of {total}' if total else ''}")
            )

    def ended(self, trial: Trial) -> None:
        if self.task is not None:
            self.bars.advance(self.task)
        mark = {"complete": "[green]✓[/]", "failed": "[red]✗[/]", "stopped": "[yellow]■[/]"}.get(trial.state, "·")
        values = "  ".join(f"{value:.5g}" for value in trial.values)
        reused = f"{trial.hits} of {trial.steps} steps from the store" if trial.steps else ""
        said = values if trial.state == "complete" else trial.error.splitlines()[0] if trial.error else trial.state
        line = f"{mark} trial {trial.number:>3}  {escape(said)}  [dim]{escape(_holes(trial.holes))}  {trial.seconds:.1f} s  {reused}[/]"
        self.console.print(line, soft_wrap=True)


def _holes(holes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in holes.items())


def _print_plan(plan: Plan, as_json: bool) -> None:
    """The holes of a space."""
    size = plan.space.size
    if as_json:
        holes = [outcome.hole_plain(hole) for hole in plan.space.holes]
        print_json({"holes": holes, "recipes": None if math.isinf(size) else int(size), "trials": plan.settings.trials})
        return
    for hole in plan.space.holes:
        allowed = f"{hole.low:g} to {hole.high:g}" if hole.kind == "range" else " | ".join(map(str, hole.options))
        where = " and ".join(f"{name} is {value}" for name, value in hole.parents)
        print_text(f"  {hole.name}: {allowed}{' (log)' if hole.log else ''}{f', where {where}' if where else ''}")
    print_text(
        f"{'countless' if math.isinf(size) else f'at most {size:.0f}'} recipes; {plan.settings.trials} would be tried"
    )


def _print(written: dict[str, Any], folder: Path) -> None:
    """The frontier, what its steps earned, and where it all is."""
    saved = written["saved"]
    kept = f"{saved['hits']} of {saved['steps']} steps came from the store, about {saved['seconds']:.0f} s saved"
    failed = sum(each["state"] == "failed" for each in written["trials"])
    print_text(f"{len(written['trials'])} trials{f', {failed} failed' if failed else ''}; {kept}")
    names = [str(each["metric"]) for each in written["objectives"]]
    for point in written["frontier"]:
        values = "  ".join(f"{name} {value:.5g}" for name, value in zip(names, point["values"], strict=True))
        print_text(f"  trial {point['trial']}: {values}  ({_holes(point['holes'])})")
        print_text(f"    {point['command']}")
    if written["ablation"]:
        print_text(f"which steps earned what, of trial {written['ablation'][0]['of']}:")
    for row in written["ablation"]:
        changes = [f"{name} {change:+.4g}" for name, change in zip(names, row["differences"], strict=False)]
        print_text(f"  {row['what']}: {'  '.join(changes) or 'failed'}")
    print_text(f"wrote {folder / 'frontier.html'} and {folder / 'frontier.json'}")
