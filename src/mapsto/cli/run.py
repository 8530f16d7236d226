"""``mapsto run``: a recipe over a store, for one seed or several, or only its plan."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mapsto.errors import DataError, MapstoError, SpecError, StoreError, command, trouble

if TYPE_CHECKING:
    from mapsto.recipe.document import Recipe
    from mapsto.run.result import RunResult
    from mapsto.store import Store
    from mapsto.store.index import Index
from mapsto.cli.app import JsonOption, StoreOption, TrustOption, app, print_json

__all__ = ["run", "seeds_of", "settings_from", "typed", "writable", "writable_at_the_end"]


def settings_from(given: list[str]) -> dict[str, Any]:
    """What ``--set`` gives: ``label.field`` → value. Raises `SpecError`."""
    from mapsto.recipe.yaml_text import read_yaml

    found: dict[str, Any] = {}
    for text in given:
        target, sign, value = text.partition("=")
        if not sign or not target:
            raise SpecError(f"'{text}' is not like label.field=value", where="--set")
        found[target.strip()] = read_yaml(value, where=f"--set {target}")[1]
    return found


def seeds_of(text: str) -> list[int]:
    """The numbers of ``--seeds``. Raises `SpecError`."""
    from mapsto.recipe.document import LARGEST_SEED

    try:
        seeds = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) > LARGEST_SEED or len(set(seeds)) != len(seeds):
        raise SpecError(f"'{text}' is not a list of different whole numbers such as 0,1,2", where="--seeds")
    return seeds


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="label.field=value, or name.field=value; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report, logs and package. [default: runs/NAME]")] = None,
    store: StoreOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:0, mps.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Lightning Fabric's precision.")] = "32-true",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch. [default: all cores]")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share each step's work, one a device.")] = 1,
    strategy: Annotated[str, typer.Option(help="How they do: auto or ddp. [default: ddp]")] = "auto",
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="The seed. [default: the recipe's]")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds, as 0,1,2: mean ± CI95.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The recipe's quick settings: shows that all works.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run, how long and how large; run nothing.")
    ] = False,
    force: Annotated[list[str] | None, typer.Option(help="Run this step (label or name) again.")] = None,
    publish_every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep what a training or a stream has come to each so many items or events, under the run."
        ),
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: what is finished is not computed again.

    Example: mapsto run demo --set teacher.steps=100 --out runs/short
    """
    from mapsto import kinds
    from mapsto.cli import progress
    from mapsto.context import Numerics
    from mapsto.recipe.reader import load_recipe

    if seed is not None and seeds is not None:
        raise SpecError("--seed and --seeds exclude each other", where="mapsto run", hint="give one of them")
    loaded = load_recipe(recipe, settings=settings_from(settings or []), quick=quick)
    chosen = seeds_of(seeds) if seeds is not None else [loaded.seed if seed is None else seed]
    if processes > 1 and strategy == "auto":
        strategy = "ddp"
    policy = {"device": device, "precision": precision} | ({} if threads is None else {"threads": threads})
    numerics = Numerics(**policy, strategy=strategy, world_size=processes)  # type: ignore[arg-type]
    folder = out or Path("runs") / loaded.name
    listener = progress.Progress(enabled=not as_json)
    with kinds.trusting(*(trust or [])), listener:
        if plan:
            _plan(loaded, chosen, store, numerics, force or [], as_json)
            return
        options = typed(
            {
                "--quick": quick,
                "--set": settings,
                "--out": out,
                "--store": store,
                "--device": device if device != "cpu" else None,
                "--precision": precision if precision != "32-true" else None,
                "--threads": threads,
                "--processes": processes if processes > 1 else None,
                "--seed": seed,
                "--seeds": seeds,
                "--publish-every": publish_every,
                "--trust": trust,
            }
        )
        report = _run_seeds(
            loaded,
            chosen,
            folder,
            store,
            numerics,
            force or [],
            listener,
            {"recipe": recipe, "options": options},
            publish_every=publish_every,
        )
    if report is None:
        return
    if as_json:
        print_json(report)
    else:
        progress.print_outcome(report, folder)
    if any(target["met"] is False for target in report["targets"]) and not quick:
        sys.stderr.write("mapsto: some targets were not met; the table says which\n")


def typed(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command: one pair for each value of a list; what is None or False is left out.

    >>> typed({"--quick": True, "--seed": 0, "--trust": ["mine", "yours"], "--out": None})
    ['--quick', '--seed', '0', '--trust', 'mine', '--trust', 'yours']
    """
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        for each in cast("list[Any]", value) if isinstance(value, list) else [value]:
            words += [name] if each is True else [name, str(each)]
    return words


def _run_seeds(
    recipe: Recipe,
    seeds: list[int],
    folder: Path,
    store: str | None,
    numerics: Any,
    force: list[str],
    listener: Any,
    command: dict[str, Any],
    *,
    publish_every: int | None = None,
) -> dict[str, Any] | None:
    """The report, saved with the command that it came from; None in a process that only computes along with the one that writes it."""
    from mapsto.kinds import Package
    from mapsto.recipe.writer import dump
    from mapsto.report import build as reports
    from mapsto.run.executor import execute
    from mapsto.store import Store

    writable(folder)
    place = Store(store)
    index = _index(place)
    built: list[dict[str, Any]] = []
    leads = True
    for seed in seeds:
        part = folder if len(seeds) == 1 else folder / f"seed-{seed}"
        result: RunResult = execute(
            recipe,
            store=place,
            seed=seed,
            numerics=numerics,
            force=force,
            listener=listener,
            logs=part / "logs",
            publish_every=publish_every,
        )
        leads = leads and result.leads
        if not leads:
            continue
        _indexed(index, result, listener)
        value = result.value() if result.result.kind == "Package" else None
        report = reports.build(result) | {"command": command}
        reports.save(report, part, recipe_yaml=dump(recipe), package=value if isinstance(value, Package) else None)
        _learn(recipe, part, place, listener)
        built.append(report)
    if not leads:
        return None
    if len(built) == 1:
        return built[0]
    combined = reports.combine(built)
    reports.save(combined, folder, recipe_yaml=dump(recipe))
    return combined


def _index(store: Store) -> Index | None:
    """The store's database; None where it cannot be opened as nothing can be written to the store, which may hold all there is."""
    from mapsto.store.index import Index

    try:
        return Index(store)
    except StoreError:
        if store.writable:
            raise
        return None


def _indexed(index: Index | None, result: RunResult, listener: Any) -> None:
    from mapsto.run.result import summary_of

    try:
        if index is not None:
            index.add(summary_of(result))
    except StoreError as error:  # it holds nothing of its own: the run, which is in the store, does not fail by it
        again = command("mapsto store index --store {store}", store=result.store.url or result.store.root)
        listener.note(
            f"the index does not know of this run: {error.what}; `{again}` makes it again once it can be written"
        )


def _learn(recipe: Recipe, folder: Path, store: Store, listener: Any) -> None:
    """Let the next advice lean on the run of an advised recipe; a run that it cannot lean on says why."""
    from mapsto.search.advisor.space import ADVISED

    if recipe.name != ADVISED:
        return
    from mapsto.search.advisor.advice import keep
    from mapsto.search.advisor.learning import learnt

    try:
        own = keep(store, [], [learnt(folder, store=store)])
    except (MapstoError, OSError) as error:  # a store that cannot be written, among others
        listener.note(f"the advisor does not learn from this run: {error}")
    else:
        listener.note(f"the advisor has learnt from this run; it knows {own.count} of yours")


def writable(folder: Path) -> None:
    """Find out before hours of work that the results can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        what, remedy = trouble(error)
        raise DataError(
            f"cannot write here: {what}", where=str(folder), hint=f"{remedy}, or give another --out"
        ) from error


@contextmanager
def writable_at_the_end(folder: Path) -> Generator[None]:
    """As `writable`; where the block fails, no empty folder is left that was not there before."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    writable(folder)
    try:
        yield
    except BaseException:
        for each in new:
            with suppress(OSError):  # logs are in it, or another program's files
                each.rmdir()
        raise


def _plan(recipe: Recipe, seeds: list[int], store: str | None, numerics: Any, force: list[str], as_json: bool) -> None:
    from mapsto.cli import progress
    from mapsto.run.executor import execute
    from mapsto.run.result import path_of
    from mapsto.store import Store

    place = Store(store)
    sizes: dict[str, list[int]] = {}
    times: dict[str, list[float]] = {}  # of the store, which has those of stopped runs too
    for row in place.ls():
        times.setdefault(row["name"], []).append(row["seconds"])
        if row["bytes"] is not None:
            sizes.setdefault(row["name"], []).append(row["bytes"])
    index, notes = _index(place), progress.Notes()
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        steps = execute(recipe, store=place, seed=seed, numerics=numerics, force=force, plan=True, listener=notes).steps
        for step in steps:
            past, took = sizes.get(step.name), times.get(step.name)
            timed = _seconds_of(index, step.name)
            seconds = timed if timed is not None or not took else sum(took) / len(took)
            rows.append(
                {
                    "seed": seed,
                    "step": path_of(steps, step),
                    "name": step.name,
                    "status": "hit" if step.hit else "would run",
                    "key": step.key or None,
                    "seconds": 0.0 if step.hit else seconds,
                    "bytes": 0 if step.hit else (sum(past) // len(past) if past else None),
                }
            )
    if as_json:
        print_json(rows)
    else:
        progress.print_plan(rows, notes.texts)


def _seconds_of(index: Index | None, name: str) -> float | None:
    return None if index is None else index.seconds_of(name)
