"""A training's metrics: rows in ``metrics.csv``, events for TensorBoard where it is installed, and the curves that a record keeps."""

from __future__ import annotations

import csv
import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

__all__ = ["NO_EVENTS", "MetricsLog", "curves", "writes_events"]

NO_EVENTS = "no events for TensorBoard are written beside metrics.csv; to have them: pip install 'mapsto[tensorboard]'"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


_FLUSH_SECONDS = 1.0
"""At most so long a row waits before whoever follows the run can read it, where others come after it."""
MOST_ROWS = 400
"""How many rows a record keeps of a log."""


def curves(rows: Callable[[], Iterable[tuple[int, Mapping[str, float]]]]) -> dict[str, Any] | None:
    """What a record keeps of a process's log: a column a metric, at most `MOST_ROWS` rows; None where there is none.

    Rows with other metrics than most, as at the end of an epoch, are thinned by themselves, so that they are not lost among the others. The
    first and the last of each sort stay. `rows` is called twice, and nothing is held but what is kept.
    """
    counts: dict[tuple[str, ...], int] = {}
    columns: dict[str, None] = {}
    for _, metrics in rows():
        sort = tuple(metrics)
        counts[sort] = counts.get(sort, 0) + 1
        columns.update(dict.fromkeys(sort))
    if not counts:
        return None
    kept = _kept(counts)
    seen = dict.fromkeys(counts, 0)
    table: list[list[Any]] = []
    for n, metrics in rows():
        sort = tuple(metrics)
        if seen[sort] in kept[sort]:
            table.append([n, *(_finite(metrics.get(name)) for name in columns)])
        seen[sort] += 1
    return {"columns": ["step", *columns], "rows": table}


def _kept(counts: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], set[int]]:
    """For each sort of rows which of them stay: the rarest sorts get their share first, and leave what they do not need."""
    kept: dict[tuple[str, ...], set[int]] = {}
    left = MOST_ROWS
    for place, (sort, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        share = min(count, left // (len(counts) - place))
        kept[sort] = {round(i * (count - 1) / max(share - 1, 1)) for i in range(share)}
        left -= share
    return kept


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _rounded(value)


def writes_events() -> bool:
    """Whether the extra ``tensorboard`` is installed."""
    return importlib.util.find_spec("tensorboard") is not None


class MetricsLog:
    """Writes metrics to ``metrics.csv`` (one row a step), and to a TensorBoard event file beside it where that is installed."""

    def __init__(self, folder: Path | None, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        self.folder = folder
        self.rows = rows
        self.file: TextIO | None = None
        self.board: _Board | None = None
        self.columns: list[str] = []
        self._flushed = 0.0

    def __enter__(self) -> Callable[[int, Mapping[str, float]], None]:
        if self.folder is None:
            return lambda step, metrics: None
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("events.out.tfevents.*"):
            stale.unlink(missing_ok=True)
        self.file = (self.folder / "metrics.csv").open("w", newline="", encoding="utf-8")
        if writes_events():
            self.board = _Board(self.folder)
        for step, metrics in self.rows:
            self.write(step, metrics)
        return self.write

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row; a metric that comes later than the first row widens the file."""
        assert_open = cast("TextIO", self.file)
        new = [name for name in metrics if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
        csv.writer(assert_open).writerow([step, *(metrics.get(c, "") for c in self.columns)])
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            assert_open.flush()
            self._flushed = time.monotonic()
        if self.board is not None:
            self.board.write(step, metrics)

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
        if self.board is not None:
            self.board.close()


class _Board:
    """Events as TensorBoard reads them, by its own writer: torch's would be imported for it."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event: Any = cast("Any", event_pb2).Event
        self._summary: Any = cast("Any", summary_pb2).Summary
        self._file: Any = EventFileWriter(str(folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row."""
        values = [self._summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        self._file.close()
