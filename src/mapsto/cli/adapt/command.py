"""``mapsto adapt``: a package from a folder of photos or a table."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mapsto.errors import DataError, SpecError, command
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Package
from mapsto.cli.app import JsonOption, StoreOption, TrustOption, app, print_json, print_note, print_text
from mapsto.cli.run import writable

_MOST_LINES = 12
"""Classes that are listed one a line."""


class _Task(Enum):
    AUTO = "auto"
    CLASSES = "classes"
    VALUES = "values"


class _Weights(Enum):
    NONE = "none"
    BALANCED = "balanced"


@app.command()
def adapt(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="[LEARNER] EXAMPLES",
            help="The examples: a folder with a folder of images for each class, an .npz archive or a table. Before them, where one is "
            "wanted, a learner: the --out folder of a run that trained one, or its package.",
        ),
    ],
    target: Annotated[str | None, typer.Option(help="The column of a table to predict.")] = None,
    task: Annotated[
        _Task, typer.Option(help="Whether a table's target is a class or a value; auto: by what the column holds.")
    ] = _Task.AUTO,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of a table to predict from, even where it seems to number the rows; may be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A column of a table not to predict from; may be repeated.")
    ] = None,
    class_weights: Annotated[
        _Weights, typer.Option(help="balanced: each class counts as much as any other, however few its examples.")
    ] = _Weights.NONE,
    out: Annotated[Path | None, typer.Option(help="Where the package goes; by default runs/adapted.")] = None,
    step: Annotated[str | None, typer.Option(help="The run's step to take; by default its last learner.")] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds what is drawn.")] = 0,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """From a few labelled examples to a package that classifies: by a learner, or by the strongest network at hand.

    Example: mapsto adapt photos --out runs/mine

    Example: mapsto adapt runs/meta_protonet photos --out runs/mine

    Example: mapsto adapt table.csv --target column

    Example: mapsto adapt table.csv --target column --exclude a --class-weights balanced
    """
    from mapsto import kinds
    from mapsto.context import Context
    from mapsto.report import build as reports

    if len(places) > 2:
        raise SpecError(
            f"{len(places)} paths are given",
            where="mapsto adapt",
            hint="give one folder of examples, with a learner before it or without",
        )
    folder = out or Path("runs") / "adapted"

    class Telling(Context):
        """A context that shows warnings and notes when they come."""

        def show_message(self, text: str, level: int) -> None:
            print_note(text)

    ctx = Telling(seed=seed)
    given = {
        "task": task.value,
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "class_weights": class_weights.value,
    }
    with _writable_at_the_end(folder), kinds.trusting(*(trust or [])):
        package, found = _adapted(places, target, ctx, store, step, given)
        reports.save_package(package, folder / "package")
    if as_json:
        print_json({**found, "warnings": ctx.warnings, "notes": ctx.notes, "package": str(folder / "package")})
        return
    for line in _counts(found["classes"], "row" if target is not None else "example"):
        print_text(f"  {line}")
    print_text(_sureness(found))
    example = command(
        "mapsto predict {folder} {file}", folder=folder, file="FILE.csv" if target is not None else "FILE"
    )
    print_text(f"wrote {folder / 'package'}; try it with: {example}")


def _counts(classes: dict[str, int], what: str) -> list[str]:
    """How many examples each class has, a line each; of many classes the first, and a line on the others."""
    rows = [f"{short(title)}: {count} {what}{'' if count == 1 else 's'}" for title, count in classes.items()]
    if len(rows) <= _MOST_LINES:
        return rows
    rest = list(classes.values())[_MOST_LINES:]
    return [*rows[:_MOST_LINES], f"… and {len(rest)} more classes, {min(rest)} to {max(rest)} {what}s each"]


@contextmanager
def _writable_at_the_end(folder: Path) -> Generator[None]:
    """As `writable`; where the block fails, no folder is left that was not there before."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    writable(folder)
    try:
        yield
    except BaseException:
        for each in new:
            with suppress(OSError):  # another program may have put something there
                each.rmdir()
        raise


def _adapted(
    places: list[Path], target: str | None, ctx: Context, store: str | None, step: str | None, given: dict[str, Any]
) -> tuple[Package, dict[str, Any]]:
    """The package of ``mapsto adapt`` and what it came to; `given` holds the options of tables, and class weights."""
    from mapsto.cli.adapt.images import adapt_to, examples_in, find_learner, strongest_at_hand, tested
    from mapsto.cli.adapt.tables import adapt_to_table
    from mapsto.data.io.image_folder import splits_in

    examples = places[-1]
    if target is not None:
        if len(places) == 2:
            raise SpecError(
                "a learner takes images or arrays; a table gets a model of its own",
                where="mapsto adapt",
                hint=command("mapsto adapt {table} --target {column}", table=examples, column=target),
            )
        if examples.is_dir():
            raise SpecError(
                "--target is a column of a table, and this is a folder",
                where=str(examples),
                hint=f"leave it out: {command('mapsto adapt {examples}', examples=examples)}",
            )
        package, result = adapt_to_table(examples, target, ctx, **given)
        return package, {"learner": "the table's columns", "method": "a linear model", **result}
    if examples.suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise SpecError(
            "a table needs the column to predict",
            where=str(examples),
            hint=command("mapsto adapt {table} --target COLUMN", table=examples),
        )
    for name in ("task", "include", "exclude"):
        if given[name] not in ((), "auto"):
            raise SpecError(
                "it is for the columns of a table", where=f"--{name}", hint="leave it out for images and arrays"
            )
    splits = splits_in(examples)
    learn = splits.get("train", examples)
    if not examples.exists() or (len(places) == 1 and not examples.is_dir()):
        raise DataError(
            "there is no such folder" if not examples.exists() else "this is no folder of images",
            where=str(examples),
            hint="give a folder with a folder of images for each class, or a learner before an .npz archive",
        )
    if len(places) == 2:
        network, name = find_learner(places[0], store=store, label=step)
    else:
        network, name = strongest_at_hand(ctx, examples)
    if len(places) == 1:
        typed = command("mapsto adapt {examples} --class-weights balanced", examples=examples)
        ctx.advice["class_weights"] = f"use `{typed}`"
    package, result = adapt_to(network, examples_in(learn, network), ctx, class_weights=given["class_weights"])
    if "test" in splits:
        result |= tested(package, splits["test"])
    return package, {"learner": name, **result}


def _sureness(result: dict[str, Any]) -> str:
    """What was adapted, and how often it is right on examples that it was not adapted to."""
    text = f"'{result['learner']}' adapted by {result['method']}"
    if "test_accuracy_percent" in result:
        text += f"; right on {result['test_accuracy_percent']:.4g} % of {result['tested']} test files"
    if result.get("task") == "values" and "rmse" not in result:
        return f"{text}; how near the answers come is not known: there is one row"
    if "rmse" in result:
        always = f"{result['rmse_of_mean']:.4g} by always answering the mean"
        return f"{text}; root mean squared error {result['rmse']:.4g} by cross-validation ({always})"
    if "accuracy_percent" not in result:
        return f"{text}; how often it is right is not known: there are too few examples"
    others = " of the classes with two examples or more" if result.get("not_judged") else ""
    ends = f" ({result['accuracy_low_percent']:.3g} to {result['accuracy_high_percent']:.3g})"
    return f"{text}; right on {result['accuracy_percent']:.4g} %{ends}{others} by cross-validation in {result['folds']} folds"
