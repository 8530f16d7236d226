"""From a raw table to a package that answers raw rows: what ``mapsto adapt table.csv --target column`` does.

The model is linear: on small tables regularised logistic (or ridge) regression on scaled columns is hard to beat, and needs nothing
tuned. How sure it is comes from cross-validation, in which scaling and filling are learnt anew from each fold's train rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mapsto.errors import DataError

if TYPE_CHECKING:
    from mapsto.kinds import Network, Package, Samples
    from mapsto.mapping import Context

__all__ = ["adapt_to_table"]

_FOLDS = 5
_MOST_CLASSES = 20
"""Whole numbers of more different values than that are numbers to predict, not classes."""


def adapt_to_table(
    file: Path,
    target: str,
    ctx: Context,
    *,
    task: Literal["auto", "classes", "values"] = "auto",
    class_weights: Literal["none", "balanced"] = "none",
) -> tuple[Package, dict[str, Any]]:
    """The strongest simple model of a table as a package, and what it came to.

    Parameters
    ----------
    file
        A CSV, TSV or Parquet file with a header; columns that only number the rows are left out, with a note.
    target
        The column to predict.
    ctx
        Takes warnings and notes about the table.
    task
        `auto`: words, and whole numbers of at most 20 different values, are classes, others numbers.
    class_weights
        `balanced`: each class weighs as much as any other, however few its rows.

    Returns
    -------
    tuple[Package, dict]
        The package, whose manifest holds the columns; and ``task``, ``rows``, ``features`` (names), ``classes`` (name → rows; empty for
        numbers), ``folds``, and by cross-validation ``accuracy_percent`` with both ends of its interval
        (`mapsto.adapting.right_in_folds`), or ``rmse`` with ``rmse_of_mean`` (of always answering the mean); left out where the rows are
        too few for it.

    Raises
    ------
    DataError
        The table is not whole, or the target has no two classes.
    SpecError
        There is no such column.
    """
    from mapsto import discovery

    chosen = _task(file, target) if task == "auto" else task
    data = discovery.find("data", "table")(file=str(file), target=target, task=chosen, ids="drop")
    samples = ctx.dataset(data)
    linear = discovery.find("mappings", "adapt.linear")(data=data, standardize=False, class_weights=class_weights)
    rows: Network = ctx.apply(discovery.find("mappings", "networks.mlp")(data=data, widths=()), None)
    adapted: Network = ctx.apply(linear, rows)
    package: Package = ctx.apply(discovery.find("mappings", "export.onnx")(data=data), adapted)
    named = chosen == "classes"
    found = {
        "task": chosen,
        "rows": len(samples),
        "features": [column.name for column in samples.preprocessing.columns],
        "classes": {name: int((samples.labels == i).sum()) for i, name in enumerate(samples.classes)} if named else {},
        **(_cross_validated(Path(file), target, chosen, samples, linear, ctx)),
    }
    return package, found


def _task(file: Path, target: str) -> Literal["classes", "values"]:
    from mapsto.data.folder import locate
    from mapsto.data.tables import read_table, target_classes

    path = locate(str(file), what="the table")
    table = read_table(path, [target])
    try:
        labels, classes = target_classes(target, table, where=str(path))
    except DataError as error:
        if "holds fractions" in error.what:
            return "values"
        raise
    numbers = all(name.lstrip("-").isdigit() and name.lstrip("-") == str(int(name.lstrip("-"))) for name in classes)
    return "values" if numbers and len(classes) > _MOST_CLASSES and len(labels) else "classes"


def _cross_validated(
    file: Path, target: str, task: Literal["classes", "values"], samples: Samples, linear: Any, ctx: Context
) -> dict[str, Any]:
    """Accuracy or error on rows that were not trained on, each row once."""
    import numpy as np

    from mapsto.adapting import right_in_folds
    from mapsto.data.folder import locate
    from mapsto.data.selection import fold_of_each
    from mapsto.data.tables import encoded_rows, learnt_columns, read_table
    from mapsto.kinds import Preprocessing

    path = locate(str(file), what="the table")
    labels = samples.labels
    fewest = int(np.bincount(labels).min()) if task == "classes" else len(samples)
    folds = min(_FOLDS, fewest)
    if folds < 2:
        ctx.warn(
            "a class has one row, so that nothing can be said of how sure the answers are; give each class two rows or more"
        )
        return {"folds": 0}
    table = read_table(path, [target])
    names = [column.name for column in samples.preprocessing.columns]
    fold = fold_of_each(labels if task == "classes" else np.zeros(len(labels), np.int64), folds, ctx.seed)
    outputs = np.zeros((len(labels), len(samples.classes)))
    fit = linear._fit if task == "classes" else linear._fit_values
    for number in range(folds):
        train = fold != number
        columns = learnt_columns(table, names, train, where=str(path)).columns
        rows, _ = encoded_rows(table, Preprocessing(kind="none", columns=columns), where=str(path))
        weight, bias = (part.double().numpy() for part in fit(rows[train].astype(np.float64), labels[train]))
        outputs[~train] = rows[~train] @ weight.T + bias
    if task == "values":
        rmse = float(np.sqrt(np.mean((outputs - labels) ** 2)))
        return {"folds": folds, "rmse": rmse, "rmse_of_mean": float(np.sqrt(np.mean((labels - labels.mean(0)) ** 2)))}
    return right_in_folds(int((outputs.argmax(1) == labels).sum()), len(labels), folds)
