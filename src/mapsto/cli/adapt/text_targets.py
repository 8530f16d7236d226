"""What ``mapsto adapt`` predicts from texts beside one class: several labels a text, or numbers.

A linear head on the frozen embedding: a logistic regression for each label (`adapt.linear`), for numbers a ridge regression. How sure it is
comes from cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mapsto.errors import SpecError
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.cli.adapt.images import AtHand
    from mapsto.cli.adapt.networks import Asked
    from mapsto.context import Context
    from mapsto.kinds import Samples
    from mapsto.run.result import Listener

__all__ = ["Task", "adapt_to_targets", "task_of"]

Task = Literal["classes", "labels", "values"]
_MOST_CLASSES = 20
"""Whole numbers of more different values than that are numbers to predict, not classes."""
_FOLDS = 5
"""Of the cross-validation that says how good a head is."""
_CALLED = {
    "all labels right": "exact_percent",
    "micro F1": "micro_f1_percent",
    "macro F1": "macro_f1_percent",
    "RMSE": "rmse",
    "RMSE of the mean": "rmse_of_mean",
    "correlation": "correlation",
}
"""The figures of `adapt.linear`, and what the command calls them."""


def task_of(
    asked: Literal["auto", "classes", "labels", "values"], file: Path, targets: tuple[str, ...], ctx: Context
) -> Task:
    """What is predicted, with a word on how that was decided where the column leaves it open.

    Raises `SpecError` for several columns that are not said to be labels or numbers, or a column that is not there.
    """
    from mapsto.data.io.download import locate
    from mapsto.data.io.tables import read_table, target_of

    if asked != "auto":
        if asked == "classes" and len(targets) > 1:
            raise SpecError(
                f"{len(targets)} columns are the target, but a class is in one",
                where="--target",
                hint="use --task labels (columns of 0 and 1) or --task values",
            )
        return asked
    first, *others = targets
    if others:
        raise SpecError(
            f"{len(targets)} columns are to be predicted",
            where="--target",
            hint="say what they are: --task labels (columns of 0 and 1) or --task values",
        )
    path = locate(str(file), what="the texts")
    table = read_table(path, targets)
    if first in table.odd:
        return "classes"
    target = target_of(table, first, where=str(path))
    if target.kind != "numbers" or target.odd:
        return "classes"
    name = short(first)
    if target.fraction is not None:
        ctx.note(f"'{name}' holds fractions, such as {target.fraction:.15g}, so that values are predicted")
        return "values"
    if target.distinct > _MOST_CLASSES:
        ctx.note(
            f"'{name}' holds {target.distinct} different numbers, so that values are predicted; for classes: --task classes"
        )
        return "values"
    if target.distinct > 2:
        ctx.note(
            f"'{name}' holds {target.distinct} different whole numbers, which are taken for classes; for numbers: --task values"
        )
    return "classes"


def adapt_to_targets(
    start: AtHand, samples: Samples, task: Task, asked: Asked, ctx: Context, listener: Listener
) -> dict[str, Any]:
    """What a package came to that answers labels or numbers; it is in the folder.

    Parameters
    ----------
    start
        The encoder.
    samples
        The texts as it reads them.

    Returns
    -------
    dict
        ``task``, ``examples``, ``classes`` (of labels: name → how many texts have it), ``method``, ``folds``, ``bytes`` and by
        cross-validation of labels ``exact_percent``, ``micro_f1_percent``, ``macro_f1_percent`` and ``per_label`` (a row each with its
        F1), of numbers ``rmse``, ``rmse_of_mean`` and ``correlation``; left out where there are too few examples.
    """
    from mapsto.cli.adapt.networks import adapt_head, network_node

    head = {"adapt.linear": {"folds": _FOLDS}}
    node = start.node or network_node(start.network, asked.folder)
    report = adapt_head(node, start.network, head, samples, asked, ctx, listener)
    return {**_figures(report, task), **counts_of(samples, task)}


def counts_of(samples: Samples, task: Task) -> dict[str, Any]:
    """How many texts there are, and have each label."""
    counts = samples.labels.sum(0).astype(int).tolist() if task == "labels" else []
    return {"examples": len(samples), "classes": dict(zip(samples.classes, counts, strict=False))}


def _figures(report: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What the report says of the head that the package has."""
    from mapsto.cli.adapt.networks import head_figures, rows_of

    tables, found = head_figures(report)
    method = "a logistic regression for each label" if task == "labels" else "a ridge regression"
    found |= {"task": task, "method": method}
    if "targets" not in tables:
        return {**found, "folds": 0}
    figures = {row[0]: row[1] for row in tables["targets"]["rows"]}
    found["folds"] = int(figures.pop("folds"))
    found |= {_CALLED[name]: value for name, value in figures.items()}
    if "per_label" in tables:
        found["per_label"] = rows_of(tables["per_label"])
    return found
