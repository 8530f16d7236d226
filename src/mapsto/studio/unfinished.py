"""A run that has not come to its end: what its logs hold so far."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from mapsto.studio.curves import Chart, charts_of, logged
from mapsto.studio.results import Result

__all__ = ["Progress", "progress"]

_QUIET = 120.0
"""Seconds without a new row after which it is not certain that a run goes on."""


class Progress(NamedTuple):
    """How far a run is."""

    steps: list[dict[str, Any]]
    """Name, last row and when it was written, in the order in which they began."""
    charts: list[Chart]
    quiet: float
    """Seconds since the last row."""

    @property
    def said(self) -> str:
        """Whether it goes on, as far as its logs tell."""
        if self.quiet < _QUIET:
            return f"running; the last row is {self.quiet:.0f} s old"
        minutes = f"{self.quiet / 60:.0f} min"
        return f"no new row for {minutes}: a step without a log takes long, or the run was stopped, and the same command goes on"

    @property
    def state(self) -> str:
        """``running`` or ``quiet``."""
        return "running" if self.quiet < _QUIET else "quiet"


def progress(result: Result) -> Progress:
    """How far the run of a folder is. Raises `DataError` where a log cannot be read."""
    files = sorted(
        (result.folder / "logs").glob("*/metrics.csv"), key=lambda file: (file.stat().st_mtime, file.parent.name)
    )
    steps: list[dict[str, Any]] = []
    found: list[Chart] = []
    for number, file in enumerate(files):
        table = logged(file)
        last = table["rows"][-1] if table else []
        known = dict(zip(table["columns"], last, strict=True)) if table else {}
        steps.append(
            {
                "name": file.parent.name,
                "row": known.pop("step", 0),
                "changed": file.stat().st_mtime,
                "metrics": {name: value for name, value in known.items() if value is not None},
            }
        )
        found += charts_of(table, prefix=f"log{number}", of=file.parent.name, leave_out=frozenset({"epoch"}))
    return Progress(steps, found, max(0.0, time.time() - result.changed))
