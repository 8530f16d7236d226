"""A file of answers, a line an event, which a run that goes on takes up where its checkpoint stands.

Lines of CSV with a header, or of JSON where the name ends in ``.jsonl``: the event's number from 1, its id, the answer, its probability
where it is a class, and the label where it came with the event. An event that was set aside has no answer.

A mark in the run's folder says how many bytes of the file the run has written, and their checksum: what something else cut off, changed or
wrote is never taken for answers of the run.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import zlib
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
_MARK_LENGTH = 120
"""Bytes of the mark, of which a full disk can then take no part."""


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
    mark
        A file that says what of the file was written by the run; None where no run will go on with it.
    run
        What tells the run from others.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        values: bool,
        as_json: bool = False,
        say: Callable[[str], None] = lambda text: None,
        mark: Path | None = None,
        run: str = "",
    ) -> None:
        self._mark_path, self._run = mark, zlib.crc32(run.encode("utf-8", "backslashreplace"))
        self._mark: IO[Any] | None = None
        self._length, self._sum = 0, 0
        """Bytes that the file holds of this run, and their checksum."""
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
            was_there = self._path.exists()
            with self._path.open("ab"):
                pass
            if not was_there:
                self._path.unlink()  # that it is not there says that nothing was written yet
            elif self._path.is_file():
                self._require_own()
        except OSError as error:
            raise self._failed(error) from error

    @property
    def is_whole(self) -> bool:
        """Whether the file holds what the run wrote, as it wrote it."""
        return self._path is not None and (not self._has_mark or (self._path.is_file() and self._is_as_marked()))

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
                self._append(self._file, lines.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if self._path is None:
                raise
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._path is not None:
            self._file.close()
        if self._mark is not None:
            self._mark.close()
        self._file = self._mark = None

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
            if start and self._path.stat().st_size and self._has_mark and not self._is_as_marked():
                raise SpecError(
                    f"was changed since, and no longer holds this run's answers to the first {start} events",
                    where=str(self._path),
                    hint="give another --predictions, which begins there; or another --store too, and all are answered anew",
                )
            with self._path.open("rb") as before:
                self._length, last = self._kept(before, start)
                before.seek(0)
                self._sum = _checksum(before, self._length)
        if start and not last:
            self._say(f"{self._path} begins after event {start}: the answers before were given by a run without it")
        if self._has_mark and self._mark_path is not None:
            self._mark_path.parent.mkdir(parents=True, exist_ok=True)
            self._mark = os.fdopen(os.open(self._mark_path, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0)
            self._write_mark()  # first: killed before the next line, what the mark tells of is still there
        file = self._path.open("ab", buffering=0)
        if self._path.is_file():
            file.truncate(self._length)
        self._append(file, b"" if self._length else self._header)
        return file

    @property
    def _has_mark(self) -> bool:
        """Whether a mark is kept: not of what is no file, such as a pipe."""
        return (
            self._mark_path is not None and self._path is not None and (not self._path.exists() or self._path.is_file())
        )

    def _append(self, file: IO[bytes], data: bytes) -> None:
        """Write to the file, then the mark."""
        _write(file, data)
        self._length, self._sum = self._length + len(data), zlib.crc32(data, self._sum)
        self._write_mark()

    def _write_mark(self) -> None:
        if self._mark is not None:
            self._mark.seek(0)
            text = json.dumps({"run": self._run, "bytes": self._length, "checksum": self._sum})
            _write(self._mark, text.ljust(_MARK_LENGTH).encode())

    def _is_as_marked(self) -> bool:
        """Whether the file begins with what the run wrote; a part that it was killed over may follow."""
        if self._mark_path is None or self._path is None:
            return False
        try:
            mark = json.loads(self._mark_path.read_bytes())
            with self._path.open("rb") as file:
                length = int(mark["bytes"])
                is_there = file.seek(0, os.SEEK_END) >= length
                file.seek(0)
                return is_there and mark["run"] == self._run and _checksum(file, length) == mark["checksum"]
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _kept(self, file: IO[bytes], start: int) -> tuple[int, int]:
        """How many bytes hold the answers to the first `start` events, and the last event among them."""
        if file.seek(0, os.SEEK_END) < len(self._header):
            return 0, 0
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
        if not first.endswith(b"\n"):  # a disk that was full took a part of it
            is_own = (self._header or b'{"event": ').startswith(first[:10])
        else:
            is_own = first == self._header if self._header else self._event(first) is not None
        if not is_own:
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


def _checksum(file: IO[bytes], length: int) -> int:
    """Of the next bytes of a file."""
    found = 0
    while length > 0 and (part := file.read(min(length, 1 << 20))):
        found, length = zlib.crc32(part, found), length - len(part)
    return found


def _shown_cells(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row whose texts are each on one line: what an id or a class holds of line breaks is written as an escape."""
    if all(not isinstance(cell, str) or cell.isprintable() for cell in row):
        return row
    return tuple(_on_one_line(cell) if isinstance(cell, str) else cell for cell in row)


def _on_one_line(text: str) -> str:
    return shown(text).replace("\n", "\\n").replace("\r", "\\r")
