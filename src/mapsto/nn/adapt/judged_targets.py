"""What linear heads for several labels or for numbers come to on examples that they were not fitted to, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.context import Context
from mapsto.kinds import Table
from mapsto.nn.adapt.examples import Examples
from mapsto.nn.evaluate.labels import label_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["attach_figures"]


def attach_figures(
    examples: Examples,
    folds: int,
    fit: Callable[[Examples], tuple[NDArray[np.float64], NDArray[np.float64]]],
    ctx: Context,
) -> None:
    """Attach the table ``targets`` (figure, value, unit), of labels ``per_label``, too; a warning where there is one example.

    Parameters
    ----------
    folds
        At most as many as there are examples.
    fit
        Weight (K, D) and bias (K,) of a head for some of the examples.
    """
    from mapsto.data.stratify import fold_of_each

    labels, rows = examples.labels, examples.features
    folds = min(folds, len(labels))
    if folds < 2:
        ctx.warn("there is one example, so that nothing can be said of how sure the answers are; give two or more")
        return
    fold = fold_of_each(np.zeros(len(labels), np.int64), folds, ctx.seed)
    outputs = np.zeros((len(labels), examples.outputs))
    for number in range(folds):
        learn, judge = np.flatnonzero(fold != number), fold == number
        weight, bias = fit(Examples.of(examples.samples.take(learn), rows[learn]))
        outputs[judge] = rows[judge] @ weight.T + bias
    figures, table = (
        _of_labels(examples, outputs) if examples.kind == "multilabel" else (_of_values(labels, outputs), None)
    )
    ctx.attach("targets", Table(columns=("figure", "value", "unit"), rows=(*figures, ("folds", float(folds), ""))))
    if table is not None:
        ctx.attach("per_label", table)
    said = ", ".join(f"{name} {value:.4g}{' %' if unit else ''}" for name, value, unit in figures)
    ctx.note(f"by cross-validation in {folds} folds: {said}")


def _of_labels(examples: Examples, outputs: NDArray[Any]) -> tuple[tuple[tuple[str, float, str], ...], Table]:
    found = label_figures(examples.labels, outputs > 0, examples.samples.classes)
    figures = (
        ("all labels right", 100 * found.exact / found.samples, "%"),
        ("micro F1", found.micro_f1, "%"),
        ("macro F1", found.macro_f1, "%"),
    )
    return figures, found.per_label


def _of_values(labels: NDArray[Any], outputs: NDArray[Any]) -> tuple[tuple[str, float, str], ...]:
    spread = labels.std(0) * outputs.std(0)
    together = ((labels - labels.mean(0)) * (outputs - outputs.mean(0))).mean(0)
    return (
        ("RMSE", float(np.sqrt(np.mean((outputs - labels) ** 2))), ""),
        ("RMSE of the mean", float(np.sqrt(np.mean((labels - labels.mean(0)) ** 2))), ""),
        ("correlation", float((together / np.where(spread > 0, spread, np.inf)).mean()), ""),
    )
