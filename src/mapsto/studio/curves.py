"""Curves of a training or a stream: as SVG, and as numbers for whoever makes the chart interactive."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mapsto.errors import DataError
from mapsto.report import charts, page
from mapsto.run.metrics_log import curves

__all__ = ["Chart", "charts_of", "logged"]


class Chart(NamedTuple):
    """Curves that share their axes."""

    id: str
    title: str
    x_name: str
    y_name: str
    xs: list[float | None]
    ys: dict[str, list[float | None]]

    @property
    def svg(self) -> str:
        """The chart as it stands in a page without JavaScript."""
        given = {name: ([*map(_nan, self.xs)], [*map(_nan, ys)]) for name, ys in self.ys.items()}
        return charts.lines(given, x_name=self.x_name, y_name=self.y_name)

    def plain(self) -> dict[str, Any]:
        """As JSON: points in the order of x, each x once."""
        order = sorted((x, place) for place, x in enumerate(self.xs) if x is not None)
        return {
            "id": self.id,
            "x": self.x_name,
            "y": self.y_name,
            "names": [*self.ys],
            "data": [[x for x, _ in order], *([ys[place] for _, place in order] for ys in self.ys.values())],
        }


def charts_of(table: Mapping[str, Any] | None, *, prefix: str, of: str, leave_out: frozenset[str]) -> list[Chart]:
    """A chart for each group of columns that share an axis, over the first column.

    Parameters
    ----------
    table
        ``columns`` and ``rows`` as a report has them; None: there are none.
    prefix, of
        Of the charts' ids and titles: the step.
    """
    columns = [str(name) for name in (table or {}).get("columns") or []]
    rows: Sequence[Sequence[Any]] = (table or {}).get("rows") or []
    if len(rows) < 2:
        return []
    numbers = {name: [page._number(row[place]) for row in rows] for place, name in enumerate(columns)}
    found: list[Chart] = []
    for y_name, members in page._grouped(name for name in columns[1:] if name not in leave_out).items():
        shown = {name: numbers[name] for name in members if any(value is not None for value in numbers[name])}
        if shown:
            title = f"{of}: {', '.join(shown)} by {columns[0]}"
            found.append(Chart(f"{prefix}-{y_name}", title, columns[0], y_name, numbers[columns[0]], shown))
    return found


def logged(file: Path) -> dict[str, Any] | None:
    """What a run's ``metrics.csv`` holds so far, thinned as a report's curves are; None where it has no row yet.

    Raises `DataError` where the file is none of a run.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=str(file), hint="it is made anew by the run") from error
    whole = text[: text.rfind("\n") + 1]  # the last line may be half written
    lines = [*csv.reader(whole.splitlines())]
    if len(lines) < 2:
        return None
    names = lines[0][1:]

    def rows() -> Iterator[tuple[int, Mapping[str, float]]]:
        for line in lines[1:]:
            yield int(line[0]), {name: float(cell) for name, cell in zip(names, line[1:], strict=False) if cell}

    try:
        return curves(rows)
    except (ValueError, IndexError) as error:
        raise DataError(f"this is no log of a run ({error})", where=str(file), hint="look at the file") from error


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
