"""From a raw table to a package that answers raw rows: what ``mapsto adapt table.csv --target column`` does.

Of classes the best of several heads on scaled columns is taken (`adapt.best`), helped by rows without a label where there are some; of
numbers a ridge regression. How sure it is comes from cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mapsto.cli.explained_network import keep_adapted
from mapsto.errors import DataError, SpecError, command
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.data.io.tables import Target
    from mapsto.kinds import Dataset, Network, Package, Samples
    from mapsto_runtime.preprocessing.raw_tables import RawTable

__all__ = ["adapt_to_table"]

_WAYS = ("logistic", "propagation", "ridge", "centroid", "nearest")
"""In the order in which they are expected to do well on a table: on scaled columns regularised logistic regression is hard to beat."""
_MOST_CLASSES = 20
"""Whole numbers of more different values than that are numbers to predict, not classes."""


def adapt_to_table(
    file: Path,
    target: str,
    ctx: Context,
    *,
    task: Literal["auto", "classes", "values"] = "auto",
    class_weights: Literal["none", "balanced"] = "none",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    unlabelled: Path | None = None,
    keep: Path | None = None,
) -> tuple[Package, dict[str, Any]]:
    """The strongest simple model of a table as a package, and what it came to.

    Parameters
    ----------
    file
        A CSV, TSV or Parquet file with a header. Columns that only tell the rows apart, dates and what holds one value or none are left
        out, with a word on each; so are rows without a value of the target.
    target
        The column to predict.
    ctx
        Takes warnings and notes about the table.
    task
        `auto`: words, and whole numbers of at most 20 different values without a unit, are classes, others numbers.
    class_weights
        `balanced`: each class weighs as much as any other, however few its rows.
    include
        Columns to predict from even where they seem only to tell the rows apart.
    exclude
        Columns not to predict from.
    keep
        The folder that the package goes to, in which the network is kept for explanations.

    Returns
    -------
    tuple[Package, dict]
        The package, whose manifest holds the columns; and ``task``, ``rows`` (with a value of the target), ``features`` (names),
        ``classes`` (name → rows; empty for numbers), ``not_judged`` (classes of one row), ``folds``, and by cross-validation
        ``accuracy_percent`` with both ends of its interval (`mapsto.cli.adapt.images.right_in_folds`), or ``rmse`` with
        ``rmse_of_mean`` (of always answering the mean); left out where the rows are too few for it.

    Raises
    ------
    DataError
        The table is not whole, or the target has no two classes.
    SpecError
        There is no such column, or the target does not fit the task.
    """
    from mapsto import discovery
    from mapsto.data.io.download import locate
    from mapsto.data.io.tables import read_table, target_of
    from mapsto.nn.export.training_digests import with_training_digests

    path = locate(str(file), what="the table")
    table = read_table(path, [target, *include, *exclude])
    if not len(table):
        raise DataError("there is not one row below the header", where=str(path), hint="add rows")
    asked = target_of(table, target, where=str(path))
    chosen = _task(asked, task, file, ctx)
    features = _features(table, target, include, exclude, file, ctx)
    data = discovery.find("data", "table")(
        file=str(file), target=target, task=chosen, features=features, unlabelled="leave_out"
    )
    if chosen == "classes":
        _require_two_classes(asked, table, str(path))
        ctx.advice["class_weights"] = "use `{}`".format(
            command("mapsto adapt {table} --target {column} --class-weights balanced", table=file, column=target)
        )
    elif class_weights != "none":
        raise SpecError(
            "--class-weights is for classes, and values are predicted here",
            where=f"column '{short(target)}'",
            hint=f"leave it out: `{command('mapsto adapt {table} --target {number}', table=file, number=target)}`",
        )
    samples = ctx.dataset(data)
    rows: Network = ctx.apply(discovery.find("mappings", "networks.mlp")(data=data, widths=()), None)
    figures: dict[str, Any]
    if chosen == "classes":
        pool = _pool(asked, unlabelled, file, target, features, ctx)
        best = discovery.find("mappings", "adapt.best")(
            data=data, unlabelled=pool, ways=_WAYS, class_weights=class_weights
        )
        adapted: Network = ctx.apply(best, rows)
        figures = _of_ways(samples, ctx)
    else:
        if unlabelled is not None:
            raise SpecError(
                "rows without labels help to tell classes, and values are predicted here",
                where="--unlabelled",
                hint="leave it out",
            )
        linear = discovery.find("mappings", "adapt.linear")(data=data, standardize=False)
        adapted = ctx.apply(linear, rows)
        figures = _error_in_folds(table, ~asked.missing(chosen), samples, linear, ctx, where=str(path))
    package: Package = ctx.apply(discovery.find("mappings", "export.onnx")(data=data), adapted)
    package = with_training_digests(package, samples.inputs, ctx)
    if keep is not None:
        keep_adapted(keep, adapted, data, package)
    named = chosen == "classes"
    found = {
        "task": chosen,
        "rows": len(samples),
        "features": [column.name for column in samples.preprocessing.columns],
        "classes": {name: int((samples.labels == i).sum()) for i, name in enumerate(samples.classes)} if named else {},
        **figures,
    }
    return package, found


def _pool(
    asked: Target, unlabelled: Path | None, file: Path, target: str, features: Sequence[str], ctx: Context
) -> Dataset | None:
    """Rows without a value of the target: those of another table, else those of the same one where it has some."""
    from mapsto import discovery

    own = int(asked.missing("classes").sum())
    if unlabelled is None and not own:
        return None
    if unlabelled is None:
        ctx.note(f"{own} rows without a value of '{short(target)}' are looked at as unlabelled ones")
    place = str(unlabelled or file)
    return discovery.find("data", "table")(file=place, target=target, features=tuple(features), unlabelled="only")


def _of_ways(samples: Samples, ctx: Context) -> dict[str, Any]:
    """What `adapt.best` found: its table, what was taken, and how often that is right on rows that it was not fitted to."""
    from mapsto.cli.adapt.images import judged_folds
    from mapsto.cli.adapt.ways import sure_of, ways_in

    _, folds, found = judged_folds(samples.labels, samples.classes, ctx, what="row")
    ways = ways_in(ctx.attached["ways"])
    taken = next(way for way in ways if way["taken"])
    return {**found, "method": taken["way"], "ways": ways, **sure_of(taken["accuracy"], samples, folds)}


def _task(
    target: Target, task: Literal["auto", "classes", "values"], file: Path, ctx: Context
) -> Literal["classes", "values"]:
    """Whether classes or values are predicted, with a word on how that was decided where the column leaves it open."""
    name = short(target.name)
    numbers, distinct, fraction = target.kind == "numbers", target.distinct, target.fraction
    as_values = command("mapsto adapt {table} --target {number} --task values", table=file, number=target.name)
    as_classes = command("mapsto adapt {table} --target {column} --task classes", table=file, column=target.name)
    where = f"{file}: column '{name}'"
    if task == "classes" and numbers and fraction is not None:
        raise SpecError(
            f"it holds fractions, such as {fraction:.15g}, so that it is not one of classes",
            where=where,
            hint=f"use `{as_values}`",
        )
    if task == "values" and not numbers:
        row = next(
            row
            for row, word in enumerate(target.words)
            if word is not None and target.values[row] != target.values[row]
        )
        raise SpecError(
            f"it holds words, not values: row {row + 1} holds '{short(target.words[row] or '')}'",
            where=where,
            hint=f"use `{as_classes}`, or mend it",
        )
    if task != "auto":
        return task
    if not numbers:
        _require_few_words(target, where, as_classes)
        for word in target.kept_gaps:
            ctx.note(f"'{word}' in '{name}' is taken for a class, not for a missing value")
        return "classes"
    of_unit = f", with the unit {target.unit}, which the answers leave out" if target.unit else ""
    if fraction is not None:
        ctx.note(f"'{name}' holds fractions, such as {fraction:.15g}, so that values are predicted{of_unit}")
        return "values"
    if distinct > _MOST_CLASSES or (target.unit and distinct > 2):
        ctx.note(
            f"'{name}' holds {distinct} different numbers{of_unit}, so that values are predicted; for classes: `{as_classes}`"
        )
        return "values"
    if distinct > 2:
        ctx.note(
            f"'{name}' holds {distinct} different whole numbers, which are taken for classes; for values: `{as_values}`"
        )
    return "classes"


def _require_few_words(target: Target, where: str, as_classes: str) -> None:
    """Refuse a column that hardly holds classes: numbers among words, or another word in most rows."""
    there = [(row, word) for row, word in enumerate(target.words) if word is not None]
    words = [(row, word) for row, word in there if target.values[row] != target.values[row]]
    if target.distinct <= _MOST_CLASSES or not there:
        return
    if 2 * len(words) < len(there):
        raise DataError(
            f"{len(there) - len(words)} of its {len(there)} values are numbers, the others words, such as "
            f"'{short(words[0][1])}' in row {words[0][0] + 1}"
            if words
            else f"it holds {target.distinct} different codes such as '{short(there[0][1])}'",
            where=where,
            hint=f"mend those cells or leave them empty, so that values are predicted, or take each for a class: `{as_classes}`",
        )
    if 2 * target.distinct > len(there):
        raise DataError(
            f"it holds {target.distinct} different words in {len(there)} rows, so that there is next to nothing to learn a class from",
            where=where,
            hint=f"choose another column, or take each for a class: `{as_classes}`",
        )


def _require_two_classes(target: Target, table: RawTable, where: str) -> None:
    """Raises `DataError` where one class is left, and says which cells count as gaps."""
    if target.distinct > 1:
        return
    cells = table.columns[(table.names or ()).index(target.name)]
    gaps = [cell for cell, gap in zip(cells, target.missing("classes"), strict=True) if gap]
    words = sorted({f"'{short(cell)}'" if cell else "an empty cell" for cell in gaps})
    only = next((f"'{short(word)}'" for word in target.words if word is not None), "none")
    what = (
        f"its only class is {only}; {few(words)} ({len(gaps)} rows) counts as a missing value"
        if gaps
        else (f"its only class is {only}" if only != "none" else "it holds no value")
    )
    raise DataError(
        what,
        where=f"{where}: column '{short(target.name)}' (the target)",
        hint="if that is the other class, write it as a word"
        if gaps
        else "add rows of another class, or choose another column",
    )


def _features(
    table: RawTable, target: str, include: Sequence[str], exclude: Sequence[str], file: Path, ctx: Context
) -> tuple[str, ...]:
    """The columns to predict from, with a word on those that are left out without being asked to be."""
    from mapsto.data.io.tables import doubtful

    both = [name for name in include if name in exclude or name == target]
    if both:
        how = "the target" if both[0] == target else "named with --exclude too"
        raise SpecError(f"the column '{short(both[0])}' is {how}", where="--include", hint="name it once")
    names = [name for name in table.names or () if name != target and name not in exclude]
    found = doubtful(table, [name for name in names if name not in include])
    drops = {*found.unfit, *found.empty}
    for text in found.said_of_unfit():
        ctx.warn(f"{file.name}: {text}")
    for text in found.said_of_empty():
        ctx.note(f"{file.name}: {text}")
    left = [name for name in names if name not in drops]
    told = [name for name in left if name not in found.constant]
    if told and len(told) < len(left):
        left = told
        for text in found.said_of_constant():
            ctx.note(f"{file.name}: {text}")
    kept = [name for name in left if name not in found.ids]
    if not left:
        raise SpecError(
            f"there is no column to predict '{short(target)}' from",
            where=str(file),
            hint=f"give a table with columns of numbers or words; it has {few([short(name) for name in table.names or ()], 20)}",
        )
    if kept and found.ids:

        def used(name: str) -> str:
            typed = command(
                "mapsto adapt {table} --target {column} --include {feature}", table=file, column=target, feature=name
            )
            return f"so that it is not predicted from; to use it: `{typed}`"

        for text in found.said_of_ids(used):
            ctx.note(f"{file.name}: {text}")
        return tuple(kept)
    for text in found.said_of_ids(
        lambda name: "so that a new row can hardly be predicted by it; there is no other column"
    ):
        ctx.warn(f"{file.name}: {text}")
    return tuple(left)


def _error_in_folds(
    table: RawTable, labelled: Any, samples: Samples, linear: Any, ctx: Context, *, where: str
) -> dict[str, Any]:
    """The error of values on rows that were not trained on, each row once; scaling and filling are learnt anew in each fold.

    `labelled` says which rows of the table the samples are.
    """
    import numpy as np

    from mapsto.cli.adapt.images import judged_folds
    from mapsto.context import SilentContext
    from mapsto.data.io.tables import parsed_columns, relearnt_rows
    from mapsto.nn.adapt.examples import Examples

    labels = samples.labels
    fold, folds, found = judged_folds(labels, (), ctx, what="row")
    if folds < 2:
        return found
    columns = samples.preprocessing.columns
    parsed = [values[labelled] for values in parsed_columns(table, columns, where=where)]
    outputs = np.zeros((len(labels), len(samples.classes)))
    quiet = SilentContext(seed=ctx.seed, key=ctx.key, numerics=ctx.numerics)  # it was said of all the rows
    for number in range(folds):
        learn, judge = fold != number, fold == number
        rows = relearnt_rows(parsed, columns, learn).astype(np.float32)
        weight, bias = linear.head(Examples.of(samples.take(np.flatnonzero(learn)), rows[learn]), quiet)
        outputs[judge] = rows[judge] @ weight.T + bias
    rmse = float(np.sqrt(np.mean((outputs - labels) ** 2)))
    return {**found, "rmse": rmse, "rmse_of_mean": float(np.sqrt(np.mean((labels - labels.mean(0)) ** 2)))}
