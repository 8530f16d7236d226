"""``mapsto adapt``: a package from a folder of photos or a table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mapsto.errors import DataError, SpecError, command
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.cli.adapt.networks import Asked as ByRecipe
    from mapsto.cli.progress import Progress
    from mapsto.context import Context
    from mapsto.kinds import Samples
    from mapsto.search.adapt import Examples
    from mapsto.search.compress import Limit
from mapsto.cli.adapt.images import AtHand
from mapsto.cli.adapt.ways import print_labels, print_ways
from mapsto.cli.app import JsonOption, StoreOption, TrustOption, app, print_json, print_note, print_text
from mapsto.cli.run import writable_at_the_end

_MOST_LINES = 12
"""Classes that are listed one a line."""
_MUCH_LOST = 5
"""Points of accuracy that limits cost; where they cost more, it is warned of."""


class _Task(Enum):
    AUTO = "auto"
    CLASSES = "classes"
    LABELS = "labels"
    VALUES = "values"
    TAGS = "tags"


class _Weights(Enum):
    NONE = "none"
    BALANCED = "balanced"


@app.command()
def adapt(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="[LEARNER] EXAMPLES",
            help="The examples: a folder with a folder of images for each class, a table, or a table of texts. Before them, where one is "
            "wanted, a learner: the --out folder of a run that trained one, or its package; with it the examples may be an .npz archive. "
            "Of texts it may be an encoder: a folder saved by transformers, or hf:OWNER/NAME on the hub.",
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(help="The column of a table to predict; of texts with several labels or values may be repeated."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="The column of texts to predict from: they are read by a pretrained encoder. Give two for pairs of texts."
        ),
    ] = None,
    task: Annotated[
        _Task,
        typer.Option(
            help="Whether a table's target is a class or a value, or of texts several labels or a tag for each word; auto: a class or a "
            "value, by what the column holds."
        ),
    ] = _Task.AUTO,
    separator: Annotated[
        str, typer.Option(help="What stands between the labels of one column, with --task labels.")
    ] = ";",
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of a table to predict from, even where it seems to number the rows; may be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A column of a table not to predict from; may be repeated.")
    ] = None,
    out_of_scope: Annotated[
        str | None,
        typer.Option(
            help="What is answered to a text that is far from all classes, as 'none of these'; rows of that class, where the table has "
            "some, are examples of it."
        ),
    ] = None,
    class_weights: Annotated[
        _Weights, typer.Option(help="balanced: each class counts as much as any other, however few its examples.")
    ] = _Weights.NONE,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            help="More examples of the same kind without labels, a folder of images or a table: used where that helps the labelled ones."
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="How long fine-tuning may take beside what is chosen without; 0: not at all.")
    ] = 10,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Search so many settings of fine-tuning, where the minutes allow it at all."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="bytes=5M, latency=5ms, macs=50M or parameters=1M of the package: it is quantized, and pruned as far as it takes; may be "
            "repeated."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the package goes; by default runs/adapted.")] = None,
    step: Annotated[str | None, typer.Option(help="The run's step to take; by default its last learner.")] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds what is drawn.")] = 0,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """From a few labelled examples to a package that classifies: by a learner, or by the strongest network at hand.

    The way to adapt is chosen by cross-validation on the examples, and what each way came to is shown. Of images the folder has the
    recipe, too.

    Example: mapsto adapt photos --out runs/mine

    Example: mapsto adapt photos --unlabelled more_photos --limit bytes=5M

    Example: mapsto adapt runs/meta_protonet photos --out runs/mine

    Example: mapsto adapt table.csv --target column

    Example: mapsto adapt intents.csv --text text --target intent

    Example: mapsto adapt intents.csv --text text --target intent --out-of-scope "none of these"

    Example: mapsto adapt hf:sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2 intents.csv --text text --target intent

    Example: mapsto adapt mails.csv --text text --target tags --task labels

    Example: mapsto adapt names.jsonl --task tags

    Example: mapsto adapt questions.csv --text first --text second --target same

    Example: mapsto adapt table.csv --target column --exclude a --class-weights balanced
    """
    from mapsto import kinds
    from mapsto.cli.progress import Progress
    from mapsto.context import Context

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
    columns = _Columns(
        task=task.value,
        separator=separator,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        out_of_scope=out_of_scope,
    )
    asked = _Asked(
        examples=places[-1],
        learner=places[0] if len(places) == 2 else None,
        targets=tuple(target or ()),
        text=tuple(text or ()),
        unlabelled=unlabelled,
        class_weights=class_weights.value,
        minutes=minutes,
        trials=trials,
        quiet=as_json,
        limits=tuple(limit or ()),
        folder=folder,
        store=store,
        step=step,
        seed=seed,
    )
    with (
        writable_at_the_end(folder),
        kinds.trusting(*(trust or [])),
        Progress(enabled=not as_json) as listener,
    ):
        found = _adapted(asked, columns, ctx, listener)
    if as_json:
        said = {
            part: list(dict.fromkeys([*getattr(ctx, part), *found.pop(part, [])])) for part in ("warnings", "notes")
        }
        print_json({**found, **said, "package": str(folder / "package")})
        return
    tagged = found.get("task") == "tags"
    counted = "span" if tagged else "row" if target and not text else "example"
    for line in _counts(found["classes"], counted):
        print_text(f"  {line}")
    if "per_label" in found:
        print_labels(found["per_label"])
    if "ways" in found:
        print_ways(found["ways"])
    print_text(_sureness(found))
    if "out_of_scope" in found:
        print_text(_scope(found["out_of_scope"], str(out_of_scope)))
    file = "FILE.csv" if target else "FILE"
    example = command(
        "mapsto predict {folder} {file}", folder=folder, file=found["example"] if text or tagged else file
    )
    page = f" and {folder / 'report.html'}" if (folder / "report.html").is_file() else ""
    print_text(f"wrote {folder / 'package'}{page}; try it with: {example}")


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The options of tables."""

    task: Literal["auto", "classes", "labels", "values", "tags"]
    separator: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    out_of_scope: str | None


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The other options."""

    examples: Path
    learner: Path | None
    targets: tuple[str, ...]
    """Columns to predict."""
    text: tuple[str, ...]
    """Columns of texts."""
    unlabelled: Path | None
    class_weights: Literal["none", "balanced"]
    minutes: float
    trials: int | None
    quiet: bool
    limits: tuple[str, ...]
    folder: Path
    store: str | None
    step: str | None
    seed: int


def _counts(classes: dict[str, int], what: str) -> list[str]:
    """How many examples each class has, a line each; of many classes the first, and a line on the others."""
    rows = [f"{short(title)}: {count} {what}{'' if count == 1 else 's'}" for title, count in classes.items()]
    if len(rows) <= _MOST_LINES:
        return rows
    rest = list(classes.values())[_MOST_LINES:]
    return [*rows[:_MOST_LINES], f"… and {len(rest)} more classes, {min(rest)} to {max(rest)} {what}s each"]


def _adapted(asked: _Asked, columns: _Columns, ctx: Context, listener: Progress) -> dict[str, Any]:
    """What ``mapsto adapt`` came to, once the package is in the folder."""
    from mapsto.cli.adapt.images import adapt_to, examples_in, find_learner, strongest_at_hand, tested
    from mapsto.data.io.image_folder import splits_in
    from mapsto.report import build as reports

    examples = asked.examples
    _limits(asked)  # what is no limit is said before anything is read
    if columns.out_of_scope is not None and not asked.text:
        raise SpecError(
            "it is for texts", where="--out-of-scope", hint="name the column of texts with --text, or leave it out"
        )
    if columns.task == "tags":
        return _of_tags(asked, columns, ctx, listener)
    if asked.text:
        return _of_texts(asked, columns, ctx, listener)
    if asked.targets:
        return _of_table(asked, columns, ctx)
    if examples.suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise SpecError(
            "a table needs the column to predict",
            where=str(examples),
            hint=command("mapsto adapt {table} --target COLUMN", table=examples),
        )
    for name, value in (("task", columns.task), ("include", columns.include), ("exclude", columns.exclude)):
        if value not in ((), "auto"):
            raise SpecError(
                "it is for the columns of a table", where=f"--{name}", hint="leave it out for images and arrays"
            )
    if examples.suffix.lower() in (".jsonl", ".ndjson", ".txt"):
        raise SpecError(
            "texts need the columns that hold them and what they are",
            where=str(examples),
            hint=command("mapsto adapt {table} --text COLUMN --target COLUMN", table=examples),
        )
    splits = splits_in(examples)
    learn = splits.get("train", examples)
    if not examples.exists() or (asked.learner is None and not examples.is_dir()):
        raise DataError(
            "there is no such folder" if not examples.exists() else "this is no folder of images",
            where=str(examples),
            hint="give a folder with a folder of images for each class, or a learner before an .npz archive",
        )
    if asked.learner is not None:
        network, name = find_learner(asked.learner, store=asked.store, label=asked.step)
        start = AtHand(network=network, name=name)
    else:
        start = strongest_at_hand(ctx, learn)
        typed = command("mapsto adapt {examples} --class-weights balanced", examples=examples)
        ctx.advice["class_weights"] = f"use `{typed}`"
    if start.network.adaptation is None:
        found = _of_images(start, asked, "train" in splits, "test" in splits, ctx, listener)
    else:
        _refuse_for_learner(asked)
        data = examples_in(learn, start.network)
        package, found = adapt_to(start.network, data, ctx, class_weights=asked.class_weights)
        reports.save_package(package, asked.folder / "package")
    lost = found.get("whole_accuracy_percent", 0.0) - found.get("accuracy_percent", 0.0)
    agreement = found.get("agreement_percent", 100.0)
    if lost > _MUCH_LOST or agreement < 100 - 2 * _MUCH_LOST:
        what = f"it is right on {lost:.0f} points fewer"
        if agreement < 100:
            what = f"it gives another class for {100 - agreement:.0f} % of the unlabelled examples"
        smaller = command("mapsto compress {run} FOLDER --limit {limit}", run=asked.folder, limit=asked.limits[0])
        ctx.warn(f"within the limit {what}: raise the limit, or let it be trained smaller: `{smaller}`")
    if "test" in splits:
        found |= tested(asked.folder / "package", splits["test"])
    return {"learner": start.name, **found}


def _refuse_for_learner(asked: _Asked) -> None:
    """Raises `SpecError` for options that a learner, which adapts in its own way, has no use for."""
    given = {"--unlabelled": asked.unlabelled, "--limit": asked.limits}
    for name in (name for name, value in given.items() if value):
        raise SpecError(
            "a learner adapts in its own way, which does not use it",
            where=name,
            hint="leave it out, or leave out the learner, so that the strongest network at hand is adapted",
        )


def _of_table(asked: _Asked, columns: _Columns, ctx: Context) -> dict[str, Any]:
    from mapsto.cli.adapt.tables import adapt_to_table
    from mapsto.report import build as reports

    examples, target = asked.examples, asked.targets[0]
    task = columns.task
    if len(asked.targets) > 1 or task in ("labels", "tags"):
        raise SpecError(
            "several labels are predicted from texts alone",
            where="--task" if task != "auto" else "--target",
            hint="name the column of texts with --text, or one column to predict and --task classes",
        )
    if asked.learner is not None:
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
    if asked.limits:
        raise SpecError(
            "a table's model is linear, a few kilobytes, and has no limit", where="--limit", hint="leave it out"
        )
    package, result = adapt_to_table(
        examples,
        target,
        ctx,
        task=task,
        class_weights=asked.class_weights,
        include=columns.include,
        exclude=columns.exclude,
        unlabelled=asked.unlabelled,
        keep=asked.folder,
    )
    reports.save_package(package, asked.folder / "package")
    return {"learner": "the table's columns", "method": "a linear model", **result}


def _of_images(
    start: AtHand, asked: _Asked, train: bool, test: bool, ctx: Context, listener: Progress
) -> dict[str, Any]:
    """Adapt a pretrained network to a folder of images or an archive; `train` and `test`: the folder has these splits."""
    from mapsto.cli.adapt.images import examples_in
    from mapsto.search.adapt import Examples

    place = str(asked.examples.resolve())
    labelled: dict[str, Any] = {"images": {"folder": place, "skip_broken": True}}
    if train:
        labelled["images"]["split"] = "train"
    if asked.examples.suffix.lower() == ".npz":
        labelled = {"arrays": {"file": place}}
    with ctx.giving(start.network):
        samples = ctx.dataset(examples_in(asked.examples / "train" if train else asked.examples, start.network))
    pool = None
    if asked.unlabelled is not None:
        pool = {"images": {"folder": str(asked.unlabelled.resolve()), "skip_broken": True, "unlabelled": True}}
    examples = Examples(
        labelled=labelled,
        pool=pool,
        test={"images": {"folder": place, "skip_broken": True, "split": "test"}} if test else None,
        class_weights=asked.class_weights,
    )
    return _of_network(start, samples, examples, asked, ctx, listener)


def _of_texts(asked: _Asked, columns: _Columns, ctx: Context, listener: Progress) -> dict[str, Any]:
    """Adapt a pretrained encoder to a table of texts."""
    from mapsto.cli.adapt.pretraining import with_pretraining
    from mapsto.cli.adapt.text_targets import task_of
    from mapsto.cli.adapt.texts import encoder_at_hand, example_of, examples_of, for_encoder, require_table

    for name, value in (("include", columns.include), ("exclude", columns.exclude)):
        if value:
            raise SpecError("it is for the columns of a table", where=f"--{name}", hint="leave it out for texts")
    require_table(asked.examples, asked.text, asked.targets)
    wanted = "auto" if columns.task == "tags" else columns.task
    task = task_of(wanted, asked.examples, asked.targets, ctx)
    if task != "classes":
        return _of_text_targets(asked, task, columns, ctx, listener)
    examples, data = examples_of(
        asked.examples,
        asked.text,
        asked.targets[0],
        asked.unlabelled,
        class_weights=asked.class_weights,
        out_of_scope=columns.out_of_scope,
    )
    start = encoder_at_hand(asked.learner, ctx, store=asked.store, step=asked.step, texts=len(asked.text))
    with ctx.giving(start.network):
        samples = ctx.dataset(data)
    examples = for_encoder(examples, start.network, len(asked.text))
    examples = with_pretraining(examples, start.network, samples, asked.minutes, ctx)
    found = _of_network(start, samples, examples, asked, ctx, listener)
    return {"learner": start.name, **found, "example": example_of(data)}


def _of_tags(asked: _Asked, columns: _Columns, ctx: Context, listener: Progress) -> dict[str, Any]:
    """Fit a head that tags each word to a pretrained encoder."""
    from mapsto.cli.adapt.tagging import adapt_to_tags, tagged_examples
    from mapsto.cli.adapt.texts import encoder_at_hand

    given = {
        "--unlabelled": asked.unlabelled,
        "--class-weights": asked.class_weights != "none",
        "--out-of-scope": columns.out_of_scope,
        "--include": columns.include,
        "--exclude": columns.exclude,
    }
    for name in (name for name, value in given.items() if value):
        raise SpecError("it is of no use where words are tagged", where=name, hint="leave it out")
    examples, samples = tagged_examples(asked.examples, asked.text, asked.targets)
    start = encoder_at_hand(asked.learner, ctx, store=asked.store, step=asked.step)
    found = adapt_to_tags(start, samples, _made_by_recipe(start, examples, asked), ctx, listener)
    return {"learner": start.name, **found}


def _of_text_targets(
    asked: _Asked, task: Literal["labels", "values"], columns: _Columns, ctx: Context, listener: Progress
) -> dict[str, Any]:
    """Fit a head that gives labels or numbers to a pretrained encoder."""
    from mapsto.cli.adapt.text_targets import adapt_to_targets
    from mapsto.cli.adapt.texts import encoder_at_hand, example_of, targets_of

    given = {"--class-weights": asked.class_weights != "none", "--out-of-scope": columns.out_of_scope is not None}
    for name in (name for name, value in given.items() if value):
        raise SpecError(
            f"it is for classes, and {task} are predicted here", where=name, hint="leave it out, or use --task classes"
        )
    examples, data = targets_of(asked.examples, asked.text, asked.targets, task, columns.separator, asked.unlabelled)
    start = encoder_at_hand(asked.learner, ctx, store=asked.store, step=asked.step, texts=len(asked.text))
    with ctx.giving(start.network):
        samples = ctx.dataset(data)
    found = adapt_to_targets(start, samples, task, _made_by_recipe(start, examples, asked), ctx, listener)
    return {"learner": start.name, **found, "example": example_of(data)}


def _made_by_recipe(start: AtHand, examples: Examples, asked: _Asked) -> ByRecipe:
    """What a recipe is to make of the examples, and where it goes."""
    from mapsto.cli.adapt.networks import Asked as ByRecipe

    return ByRecipe(
        examples=examples,
        title=f"{start.name} adapted to {asked.examples.name}",
        folder=asked.folder,
        store=asked.store,
        seed=asked.seed,
        minutes=asked.minutes,
        trials=asked.trials,
        quiet=asked.quiet,
        limits=_limits(asked),
    )


def _of_network(
    start: AtHand, samples: Samples, examples: Examples, asked: _Asked, ctx: Context, listener: Progress
) -> dict[str, Any]:
    """Adapt a pretrained network by the recipe that is written for it."""
    from mapsto.cli.adapt.images import judged_folds
    from mapsto.cli.adapt.networks import adapt_network, figures_of, network_node
    from mapsto.data.checks import require_classes

    by_recipe = _made_by_recipe(start, examples, asked)
    require_classes(samples, max(2, len(samples.classes)), where=str(asked.examples))
    _, folds, judged = judged_folds(samples.labels, samples.classes, ctx, what="example")
    node = start.node or network_node(start.network, asked.folder)
    report = adapt_network(node, start.network, samples, by_recipe, ctx, listener)
    counts = {title: int((samples.labels == number).sum()) for number, title in enumerate(samples.classes)}
    return {"classes": counts, "examples": len(samples), **judged, **figures_of(report, samples, folds)}


def _limits(asked: _Asked) -> tuple[Limit, ...]:
    """The limits. Raises `SpecError` for what is none."""
    from mapsto.search.compress import parse_limit, together

    return together(tuple(parse_limit(text) for text in asked.limits)) if asked.limits else ()


def _scope(figures: dict[str, Any], name: str) -> str:
    """How often texts are told to be out of scope, rightly or wrongly."""
    text = f"'{name}' is answered to {100 - figures['kept']:.3g} % of the left-out examples of the classes"
    if "refused" not in figures:
        return text
    return f"{text} and to {figures['refused']:.3g} % of the examples out of scope (AUROC {figures['AUROC']:.3g} %)"


def _sureness(result: dict[str, Any]) -> str:
    """What was adapted, and how often it is right on examples that it was not adapted to."""
    text = f"'{result['learner']}' adapted by {result['method']}"
    if "test_accuracy_percent" in result:
        text += f"; right on {result['test_accuracy_percent']:.4g} % of {result['tested']} test files"
    if result.get("task") == "values" and "rmse" not in result:
        return f"{text}; how near the answers come is not known: there is one row"
    if "rmse" in result:
        always = f"{result['rmse_of_mean']:.4g} by always answering the mean"
        agree = f", correlation {result['correlation']:.3f}" if "correlation" in result else ""
        return f"{text}; root mean squared error {result['rmse']:.4g} by cross-validation ({always}){agree}"
    if "span_f1_percent" in result:
        return (
            f"{text}; {result['words_percent']:.4g} % of the words are tagged right, F1 of spans {result['span_f1_percent']:.4g} %, by "
            f"cross-validation in {result['folds']} folds"
        )
    if "exact_percent" in result:
        return (
            f"{text}; all labels of a text are right for {result['exact_percent']:.4g} %, F1 of all labels together "
            f"{result['micro_f1_percent']:.4g} %, mean F1 of a label {result['macro_f1_percent']:.4g} %, by cross-validation in "
            f"{result['folds']} folds"
        )
    if "accuracy_percent" not in result:
        return f"{text}; how often it is right is not known: there are too few examples"
    others = " of the classes with two examples or more" if result.get("not_judged") else ""
    ends = f" ({result['accuracy_low_percent']:.3g} to {result['accuracy_high_percent']:.3g})"
    text += (
        f"; right on {result['accuracy_percent']:.4g} %{ends}{others} by cross-validation in {result['folds']} folds"
    )
    if "agreement_percent" in result:
        share = f"{result['agreement_percent']:.4g} % of the unlabelled examples"
        return f"{text}, before it was made smaller; the small network gives the same class for {share}"
    before = result.get("whole_accuracy_percent")
    return text if before is None else f"{text}, and on {before:.4g} % before it was made smaller"
