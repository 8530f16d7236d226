"""A file of answers, a line an event, which a run that goes on takes up where its checkpoint stands.

Lines of CSV with a header, or of JSON where the name ends in ``.jsonl``: the event's number from 1, its id, the answer, its probability
where it is a class, and the label where it came with the event. An event that was set aside has no answer.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mapsto.errors import DataError, SpecError, trouble
from mapsto_runtime.shown import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Block

__all__ = ["PredictionFile"]

COLUMNS = ("event", "id", "answer", "probability", "label")
_JSON = (".jsonl", ".ndjson")


class PredictionFile:
    """Writes answers.

    Parameters
    ----------
    path
        The file; None is standard output.
    values
        Whether answers are numbers.
    as_json
        Lines of JSON on standard output.
    say
        Is told where the file does not begin with the first event.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        values: bool,
        as_json: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._path, self._values, self._say = path, values, say
        self._is_json = as_json if path is None else path.suffix.lower() in _JSON
        self._columns = tuple(name for name in COLUMNS if not (values and name == "probability"))
        self._file: IO[Any] | None = None

    @property
    def is_json(self) -> bool:
        """Whether it writes lines of JSON."""
        return self._is_json

    def check(self) -> None:
        """Raises `DataError` or `SpecError` where the file cannot be written, or holds something else."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab"):
                pass
            if self._path.is_file():
                self._require_own()
                if not self._path.stat().st_size:
                    self._path.unlink()  # that it is not there says that nothing was written yet
        except OSError as error:
            raise self._failed(error) from error

    def add(
        self,
        start: int,
        block: Block,
        scores: NDArray[np.float64],
        classes: Sequence[str],
        why: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        """The answers to the events of a block that have features, or that could not be read; `start` events came before it.

        `why` says of each event what stands behind its answer; it has a place in lines of JSON alone.
        """
        lines = self._lines(start, block, scores, classes, why)
        try:
            if self._file is None:
                self._file = self._opened(start)
            if self._path is None:
                self._file.write(lines)
            else:  # at once: before the checkpoint that says that these events were answered
                _write(self._file, lines.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if self._path is None:
                raise
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._path is not None:
            self._file.close()
        self._file = None

    # -- private

    def _lines(
        self,
        start: int,
        block: Block,
        scores: NDArray[np.float64],
        classes: Sequence[str],
        why: Sequence[dict[str, Any]] | None,
    ) -> str:
        """The lines of a block, or of what of it has an answer or could not be read."""
        count = len(block)
        if scores.shape[1]:
            best = scores.argmax(1).tolist()
            top = scores.max(1).tolist()
        else:
            best, top = [0] * count, [0.0] * count
        if self._values:
            answers = [value if math.isfinite(value) else None for value in top]
        else:
            answers = [classes[place] if value > 0 else None for place, value in zip(best, top, strict=True)]
        columns: dict[str, Sequence[Any]] = {
            "event": range(start + 1, start + count + 1),
            "id": [name or None for name in block.ids.tolist()],
            "answer": answers,
            "probability": [None if answer is None else value for answer, value in zip(answers, top, strict=True)],
            "label": [
                label if has else None for label, has in zip(block.y.tolist(), block.has_y.tolist(), strict=True)
            ],
        }
        names = self._columns if why is None else (*self._columns, "why")
        columns["why"] = why or ()
        rows = zip(*(columns[name] for name in names), strict=True)
        if not block.has_x.all():
            asked = block.has_x.tolist()
            rows = (row for event, row in enumerate(rows) if asked[event] or event in block.broken)
        if self._is_json:
            return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(map(_shown_cells, rows))
        return text.getvalue()

    @property
    def _header(self) -> bytes:
        return b"" if self._is_json else (",".join(self._columns) + "\n").encode()

    def _opened(self, start: int) -> IO[Any]:
        """The file with the answers to the first `start` events and no more."""
        if self._path is None:
            sys.stdout.write(self._header.decode())
            return sys.stdout
        last = 0
        if self._path.is_file():
            self._require_own()
            with self._path.open("rb+") as before:
                length, last = self._kept(before, start)
                before.truncate(length)
        if start and not last:
            self._say(f"{self._path} begins after event {start}: the answers before were given by a run without it")
        file = self._path.open("ab", buffering=0)
        if not self._path.is_file() or not os.fstat(file.fileno()).st_size:
            _write(file, self._header)
        return file

    def _kept(self, file: IO[bytes], start: int) -> tuple[int, int]:
        """How many bytes hold the answers to the first `start` events, and the last event among them."""
        length, last = file.seek(len(self._header)), 0
        for line in file:
            event = self._event(line)
            if event is None or event > start or not line.endswith(b"\n"):
                break
            length, last = length + len(line), event
        return length, last

    def _event(self, line: bytes) -> int | None:
        try:
            return int(json.loads(line)["event"]) if self._is_json else int(line.partition(b",")[0])
        except (ValueError, LookupError, TypeError):
            return None

    def _require_own(self) -> None:
        path = self._path
        if path is None or not path.stat().st_size:
            return
        with path.open("rb") as file:
            first = file.readline(1 << 16)
        if first != self._header if self._header else self._event(first) is None:
            raise SpecError(
                "is there and holds something other than predictions", where=str(path), hint="give another file"
            )

    def _failed(self, error: OSError) -> DataError:
        what, remedy = trouble(error)
        return DataError(
            f"cannot write predictions: {what}", where=str(self._path), hint=f"{remedy}, or give another --predictions"
        )


def _write(file: IO[bytes], data: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part first."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _shown_cells(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row whose texts are each on one line: what an id or a class holds of line breaks is written as an escape."""
    if all(not isinstance(cell, str) or cell.isprintable() for cell in row):
        return row
    return tuple(_on_one_line(cell) if isinstance(cell, str) else cell for cell in row)


def _on_one_line(text: str) -> str:
    return shown(text).replace("\n", "\\n").replace("\r", "\\r")
