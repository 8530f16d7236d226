"""The ways to adapt, with what cross-validation says of each: read from a table, judged, and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapsto.kinds import Samples

__all__ = ["print_labels", "print_ways", "sure_of", "ways_in"]


_MOST_LABELS = 20


def ways_in(table: Any) -> list[dict[str, Any]]:
    """A row for each way, from the table that `adapt.best` attaches: a value, or as a report has it."""
    columns, rows = (table["columns"], table["rows"]) if isinstance(table, Mapping) else (table.columns, table.rows)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def sure_of(accuracy: Any, samples: Samples, folds: int) -> dict[str, Any]:
    """How often held-out examples are told right, in %, with both ends of its interval; nothing where none could be held out."""
    import numpy as np

    from mapsto.cli.adapt.images import right_in_folds

    if folds < 2 or accuracy == "":
        return {}
    judged = int((np.bincount(samples.labels)[samples.labels] > 1).sum())
    return right_in_folds(round(judged * float(accuracy) / 100), judged, folds)


def print_ways(ways: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each way; the one that was taken is marked. A figure that is not known is left empty."""
    from rich.table import Table

    from mapsto.cli.progress import Screen

    table = Table(title="right on held-out examples", title_justify="left", box=None, padding=(0, 2))
    for name in ("way", "accuracy, %", "±", "log-loss", ""):
        table.add_column(name, justify="left" if name in ("way", "") else "right")
    for way in ways:
        figures = [_shown(way.get(name, "")) for name in ("accuracy", "± of accuracy")]
        table.add_row(str(way["way"]), *figures, _shown(way.get("log-loss", ""), 3), "taken" if way["taken"] else "")
    Screen(highlight=False).print(table)


def print_labels(labels: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each label of several: how well held-out examples are told to have it; of many the worst."""
    from rich.table import Table

    from mapsto.cli.progress import Screen

    shown = sorted(labels, key=lambda row: row["f1"])[:_MOST_LABELS]
    title = "labels of held-out examples" + (f", the worst {_MOST_LABELS}" if len(labels) > _MOST_LABELS else "")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2))
    for name in ("label", "F1, %", "precision, %", "recall, %", "examples"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for row in shown:
        table.add_row(row["label"], *(_shown(row[name]) for name in ("f1", "precision", "recall", "support")))
    Screen(highlight=False).print(table)


def _shown(value: Any, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
