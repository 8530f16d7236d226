"""A training's metrics: rows in ``metrics.csv``, events for TensorBoard, and the curves that a record keeps."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from collections.abc import Mapping as AbcMapping
from pathlib import Path
from typing import Any, TextIO, cast

__all__ = ["MetricsLog", "curves"]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def curves(rows: list[tuple[int, dict[str, float]]]) -> dict[str, Any] | None:
    """What a record keeps of a training: a column a metric, a row an item; None where there is none."""
    if not rows:
        return None
    columns = list(dict.fromkeys(name for _, metrics in rows for name in metrics))
    table = [[n, *(_finite(metrics.get(c)) for c in columns)] for n, metrics in rows]
    return {"columns": ["step", *columns], "rows": table}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _rounded(value)


class MetricsLog:
    """Writes metrics to ``metrics.csv`` (one row a step) and to a TensorBoard event file beside it."""

    def __init__(self, folder: Path | None, rows: list[tuple[int, dict[str, float]]]) -> None:
        self.folder = folder
        self.rows = rows
        self.file: TextIO | None = None
        self.board: Any = None
        self.columns: list[str] = []

    def __enter__(self) -> Callable[[int, AbcMapping[str, float]], None]:
        if self.folder is None:
            return lambda step, metrics: None
        from torch.utils.tensorboard.writer import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("events.out.tfevents.*"):
            stale.unlink(missing_ok=True)
        self.file = (self.folder / "metrics.csv").open("w", newline="", encoding="utf-8")
        self.board = SummaryWriter(str(self.folder))
        for step, metrics in self.rows:
            self.write(step, metrics)
        return self.write

    def write(self, step: int, metrics: AbcMapping[str, float]) -> None:
        """One row; a metric that comes later than the first row widens the file."""
        assert_open = cast("TextIO", self.file)
        new = [name for name in metrics if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
        csv.writer(assert_open).writerow([step, *(metrics.get(c, "") for c in self.columns)])
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)

    def _rewrite(self) -> None:
        file = cast("TextIO", self.file)
        file.flush()
        old = list(csv.reader((cast("Path", self.folder) / "metrics.csv").read_text(encoding="utf-8").splitlines()))[1:]
        file.seek(0)
        file.truncate()
        writer = csv.writer(file)
        writer.writerow(["step", *self.columns])
        writer.writerows([row + [""] * (len(self.columns) + 1 - len(row)) for row in old])

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
            self.board.close()
