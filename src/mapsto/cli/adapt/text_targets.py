"""What ``mapsto adapt`` predicts from texts beside one class: several labels a text, or numbers.

A linear head on the frozen embedding: a logistic regression for each label (`adapt.linear`), for numbers a ridge regression. How sure it is
comes from cross-validation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mapsto.errors import SpecError
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Dataset, Network, Package, Samples

__all__ = ["Task", "adapt_to_targets", "task_of"]

Task = Literal["classes", "labels", "values"]
_MOST_CLASSES = 20
"""Whole numbers of more different values than that are numbers to predict, not classes."""


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
    network: Network, data: Dataset, task: Task, ctx: Context, *, file: Path
) -> tuple[Package, dict[str, Any]]:
    """A package that answers labels or numbers, and what it came to.

    Returns
    -------
    tuple[Package, dict]
        The package; and ``task``, ``examples``, ``classes`` (of labels: name → how many texts have it), ``method``, ``folds`` and by
        cross-validation of labels ``exact_percent``, ``micro_f1_percent``, ``macro_f1_percent`` and ``per_label`` (a row each with its
        F1), of numbers ``rmse``, ``rmse_of_mean`` and ``correlation``; left out where there are too few examples.

    Raises
    ------
    DataError
        The data is not whole, or no label is on some texts and off others.
    """
    from mapsto import discovery
    from mapsto.cli.adapt.images import judged_folds
    from mapsto.nn.adapt import logistic
    from mapsto.nn.adapt.examples import Examples
    from mapsto.nn.adapt.features import features
    from mapsto.nn.export.training_digests import with_training_digests

    with ctx.giving(network):
        samples: Samples = ctx.dataset(data)
    _require_told_apart(samples, task, file)
    fields: dict[str, Any] = {"data": data}
    rows = features(network, samples.inputs, ctx)
    if task == "labels":
        strength, losses = logistic.chosen(rows, samples.labels, len(samples.classes), ctx.random("folds"))
        fields["strength"] = strength
        ctx.note(
            f"strength: {strength:g} was chosen by cross-validated log-loss" if losses else f"strength: {strength:g}"
        )
    linear: Any = discovery.find("mappings", "adapt.linear")(**fields)
    fold, folds, found = judged_folds(samples.labels, (), ctx, what="text")
    if folds >= 2:
        found |= _figures(Examples.of(samples, rows), fold, folds, linear, task, ctx)
    adapted: Network = ctx.apply(linear, network)
    package: Package = ctx.apply(discovery.find("mappings", "export.onnx")(data=data), adapted)
    package = with_training_digests(package, samples.inputs, ctx)
    counts = samples.labels.sum(0).astype(int).tolist() if task == "labels" else []
    method = "a logistic regression for each label" if task == "labels" else "a ridge regression"
    found |= {"task": task, "method": method, "examples": len(samples)}
    return package, {**found, "classes": dict(zip(samples.classes, counts, strict=False))}


def _require_told_apart(samples: Samples, task: Task, file: Path) -> None:
    """Raises `DataError` where there is nothing to learn."""
    from mapsto.errors import DataError

    if task == "labels" and not (samples.labels.any(0) & ~samples.labels.all(0)).any():
        raise DataError(
            "there is no label that some texts have and others have not",
            where=str(file),
            hint="name a column whose cells hold labels, such as: red; fruit",
        )
    if task == "labels" and len(samples.classes) == len(samples) > 2:
        raise DataError(
            f"there are as many labels as texts ({len(samples)}), such as '{short(samples.classes[0])}'",
            where=str(file),
            hint="check --separator, or name another column",
        )


def _figures(examples: Any, fold: Any, folds: int, linear: Any, task: Task, ctx: Context) -> dict[str, Any]:
    """What heads come to on the texts of the fold that they were fitted without."""
    import numpy as np

    from mapsto.context import SilentContext
    from mapsto.nn.adapt.examples import Examples
    from mapsto.nn.evaluate.labels import label_figures

    labels, rows = examples.labels, examples.features
    outputs = np.zeros((len(labels), examples.outputs))
    quiet = SilentContext(seed=ctx.seed, key=ctx.key, numerics=ctx.numerics)  # it was said of all the texts
    for number in range(folds):
        learn, judge = np.flatnonzero(fold != number), fold == number
        weight, bias = linear.head(Examples.of(examples.samples.take(learn), rows[learn]), quiet)
        outputs[judge] = rows[judge] @ weight.T + bias
    if task == "labels":
        figures = label_figures(labels, outputs > 0, examples.samples.classes)
        return {
            "exact_percent": 100 * figures.exact / figures.samples,
            "micro_f1_percent": figures.micro_f1,
            "macro_f1_percent": figures.macro_f1,
            "per_label": [dict(zip(figures.per_label.columns, row, strict=True)) for row in figures.per_label.rows],
        }
    spread = labels.std(0) * outputs.std(0)
    together = ((labels - labels.mean(0)) * (outputs - outputs.mean(0))).mean(0)
    return {
        "rmse": float(np.sqrt(np.mean((outputs - labels) ** 2))),
        "rmse_of_mean": float(np.sqrt(np.mean((labels - labels.mean(0)) ** 2))),
        "correlation": float((together / np.where(spread > 0, spread, np.inf)).mean()),
    }
