"""A CSV file as a stream: a line is an event, and its position is the byte that it begins at, so that going on costs no reading again.

A line without a value of the target is a question; one with an id and a target alone is a label that comes late.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, cast

from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Block, ColumnType, Json, Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Csv"]

_HEAD_ROWS = 100
"""Rows at the beginning of the file that say what its columns hold."""
_LONGEST = 1 << 20
"""Bytes of a line, with the line breaks in its quoted cells."""
_LOOK_SECONDS = 0.1
"""How often a file that is followed is looked at."""
_IDLE_SECONDS = 1.0
_MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "?"})
_SEPARATORS = (",", ";", "\t", "|")


class Csv(Stream):
    r"""The lines of a file with a header, features as numbers where the first 100 rows hold nothing else, else as words.

    Raises `DataError` for a file without a header or that becomes shorter while it is followed, `SpecError` for a column that it has not.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "doors.csv"
    >>> _ = file.write_text("width,colour,open\n0.8,red,yes\n1.2,,no\n")
    >>> block = next(Csv(file=str(file), target="open").open())
    >>> block.x["width"].tolist(), block.x["colour"].tolist(), block.y.tolist(), block.next
    ([0.8, 1.2], ['red', ''], ['yes', 'no'], 38)
    """

    file: str
    """The file: a path, or a path inside the data folder."""
    target: str
    """The column to predict."""
    features: tuple[str, ...] | None = None
    """The columns to predict from; by default all but the target, the id and the time."""
    id: str | None = None
    """The column that names an event, by which its label may come late."""
    time: str | None = None
    """The column of times: seconds of the epoch, or as in ISO 8601."""
    separator: Literal[",", ";", "\t", "|"] | None = None
    """What stands between cells; by default what is most frequent in the header."""
    follow: bool = False
    """Whether to wait for more at its end, without end."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """A file with questions, late labels, gaps, quotes and a broken line."""
        file = folder / "doors.csv"
        lines = [f'{n},{n / 4 if n % 5 else ""},"red, {n % 3}",{"yes" if n % 2 else ""}' for n in range(40)]
        lines[20] = "20,1.5"
        lines += [f"{n},,,no" for n in range(0, 20, 2)]
        file.write_text("\n".join(["number,width,colour,open", *lines]) + "\n", encoding="utf-8")
        return {"file": str(file), "target": "open", "id": "number"}

    @property
    def bounded(self) -> bool:
        return not self.follow

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [str(self._path.absolute())], without=("file",))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        return fingerprint_of(self, [file_digest(self._path)], without=("file",))

    def columns(self) -> Mapping[str, ColumnType]:
        return dict(self._layout.types)

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        layout = self._layout
        at = layout.start if position is None else cast("int", position)
        with self._path.open("rb") as file:
            self._require_line_start(file, at)
            file.seek(at)
            looked = time.monotonic()
            while True:
                lines, after = self._lines(file, at, size)
                if lines:
                    yield self._block(lines, after)
                    looked = time.monotonic()
                elif not self.follow:
                    return
                else:
                    if time.monotonic() - looked >= _IDLE_SECONDS:
                        looked = time.monotonic()
                        yield self._block([], after)
                    time.sleep(_LOOK_SECONDS)
                at = after

    # -- reading

    @cached_property
    def _path(self) -> Path:
        from mapsto.data.io.download import locate

        return locate(self.file, what="the stream")

    @cached_property
    def _layout(self) -> _Layout:
        """What the header and the first rows say."""
        with self._path.open("rb") as file:
            first = file.readline()
            header = _text(first, self._path).lstrip("\ufeff").rstrip("\r\n")
            separator = self.separator or max(reversed(_SEPARATORS), key=header.count)
            names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
            if not header.strip() or not any(names):
                raise DataError("has no header", where=str(self._path), hint="name its columns in the first line")
            where = {name: place for place, name in reversed(list(enumerate(names)))}
            for name in (self.target, self.id, self.time, *(self.features or ())):
                if name is not None and name not in where:
                    raise SpecError(f"there is no column '{name}'", where=str(self._path), hint=nearest(name, names))
            others = {self.target, self.id, self.time}
            chosen = self.features or tuple(name for name in names if name and name not in others)
            if not chosen or set(chosen) & others:
                raise SpecError(
                    f"needs a column other than the target '{self.target}', the id and the time to predict from",
                    where=str(self._path),
                    hint=f"its columns: {', '.join(names[:20])}",
                )
            layout = _Layout(len(first), separator, len(names), where, {})
            head, _ = self._lines(file, len(first), _HEAD_ROWS)
            if not head and self.follow:
                raise DataError(
                    "has no line after its header, and its first lines say which columns are numbers",
                    where=str(self._path),
                    hint="begin once the first events are there",
                )
            rows = [row for row in layout.cells(head, self._path) if len(row) == len(names)]
        types: dict[str, ColumnType] = {}
        for name in chosen:
            types[name] = "number" if _are_numbers([row[where[name]] for row in rows]) else "word"
        return layout._replace(types=types)

    def _lines(self, file: BinaryIO, at: int, most: int) -> tuple[list[bytes], int]:
        """At most so many lines from byte `at`, where the file stands, and the byte after them; of a followed file whole lines only."""
        lines: list[bytes] = []
        while len(lines) < most:
            line, length = self._next_line(file, at)
            if not length:
                file.seek(at)
                self._require_whole(file, at)
                break
            at += length
            if line.strip() or length >= _LONGEST:
                lines.append(line)
        return lines, at

    def _next_line(self, file: BinaryIO, at: int) -> tuple[bytes, int]:
        """The line at byte `at`, empty if it is longer than `_LONGEST`, and its length; 0 if there is none, or none that is whole yet.

        With a quote that is not closed within `_LONGEST` or up to the end, it is the one line and not all that follow.
        """
        first = line = file.readline(_LONGEST)
        if len(first) == _LONGEST and not first.endswith(b"\n"):
            length = len(first)
            while more := file.readline(_LONGEST):
                length += len(more)
                if more.endswith(b"\n"):
                    return b"", length
            return b"", 0 if self.follow else length
        quotes = line.count(b'"')
        while quotes % 2 and len(line) < _LONGEST and (more := file.readline(_LONGEST)):
            line += more
            quotes += more.count(b'"')
        if self.follow and len(line) < _LONGEST and (quotes % 2 or not line.endswith(b"\n")):
            return b"", 0
        if quotes % 2:
            line = first
            file.seek(at + len(first))
        return line, len(line)

    def _require_line_start(self, file: BinaryIO, at: Any) -> None:
        """Raises `DataError` where no line begins at a position, as in a file that another one has replaced."""
        length = file.seek(0, 2)
        fits = isinstance(at, int) and self._layout.start <= at <= length
        if fits and self._layout.start < at < length:
            file.seek(at - 1)
            fits = file.read(1) == b"\n"
        if not fits:
            raise DataError(
                f"no line begins at byte {at} of {length}, where it was read up to before: it is another file, or has become shorter",
                where=str(self._path),
                hint="append to it only, or start another store",
            )

    def _require_whole(self, file: BinaryIO, at: int) -> None:
        length = file.seek(0, 2)
        file.seek(at)
        if length < at:
            raise DataError(
                f"has {length} bytes, and was read up to byte {at} before: it has become shorter",
                where=str(self._path),
                hint="append to it only, or start another store",
            )

    def _block(self, lines: Sequence[bytes], after: int) -> Block:
        import numpy as np

        layout = self._layout
        rows = layout.cells(lines, self._path)
        broken = {
            event: f"{len(row)} cells where the header has {layout.width}"
            if row
            else "no row of a table, or longer than 1 MiB"
            for event, row in enumerate(rows)
            if len(row) != layout.width and not (len(row) > layout.width and not any(row[layout.width :]))
        }
        rows = [row[: layout.width] if event not in broken else [""] * layout.width for event, row in enumerate(rows)]
        columns = list(zip(*rows, strict=True)) if rows else [()] * layout.width
        cells = {name: columns[layout.places[name]] for name in layout.types}
        labels = columns[layout.places[self.target]]
        ids = columns[layout.places[self.id]] if self.id is not None else ("",) * len(rows)
        has_x = np.ones(len(rows), np.bool_)
        if self.id is not None:
            has_x = np.array([any(row) for row in zip(*cells.values(), strict=True)], np.bool_)
        return Block(
            times=np.array([_time(cell) for cell in columns[layout.places[self.time]]], np.float64)
            if self.time is not None
            else np.full(len(rows), np.nan),
            ids=_words(ids),
            x={name: _column(cells[name], kind) for name, kind in layout.types.items()},
            has_x=has_x,
            y=_words(labels),
            has_y=np.array([label != "" for label in labels], np.bool_),
            next=after,
            broken=broken,
        )


class _Layout(NamedTuple):
    """What is known of a file before its events."""

    start: int
    """The first byte after the header."""
    separator: str
    width: int
    places: dict[str, int]
    types: dict[str, ColumnType]

    def cells(self, lines: Sequence[bytes], path: Path) -> list[list[str]]:
        """The cells of each line, without blanks around them; none of a line that is no row."""
        texts = [_text(line, path) for line in lines]
        try:
            rows = list(csv.reader(texts, delimiter=self.separator))
        except csv.Error:
            rows = []
        if len(rows) != len(texts):  # one by one: a quote that is not closed would take the next lines along
            rows = [_row(text, self.separator) for text in texts]
        return [[cell.strip() for cell in row] for row in rows]


def _row(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=separator), [])
    except csv.Error:
        return []


def _text(line: bytes, path: Path) -> str:
    if b"\0" in line:
        raise DataError("is no text", where=str(path), hint="save it as CSV in UTF-8")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _number(cell: str) -> float | None:
    from mapsto_runtime.preprocessing.raw_tables import number_of

    try:
        return float(cell)
    except ValueError:
        return number_of(cell)


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        list(map(float, cells))
    except ValueError:
        return all(cell in _MISSING or _number(cell) is not None for cell in cells)
    return True


def _column(cells: Sequence[str], kind: ColumnType) -> NDArray[Any]:
    """Numbers with NaN for a missing one, or words; a column of numbers in which other words stand is given as words."""
    import numpy as np

    if kind == "word":
        return _words(["" if cell in _MISSING else cell for cell in cells])
    try:
        return np.array(cells, dtype=np.str_).astype(np.float64) if len(cells) else np.zeros(0)
    except ValueError:
        pass
    numbers = [math.nan if cell in _MISSING else _number(cell) for cell in cells]
    if None not in numbers:
        return np.array(numbers, np.float64)
    told = ["" if number is None or math.isnan(number) else repr(number) for number in numbers]
    return _words([cell if number is None else text for cell, number, text in zip(cells, numbers, told, strict=True)])


def _words(cells: Sequence[str]) -> NDArray[Any]:
    import numpy as np

    words = np.empty(len(cells), object)
    words[:] = cells
    return words


def _time(cell: str) -> float:
    """Seconds of the epoch; NaN for what is no time."""
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(cell)
    except ValueError:
        return math.nan
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
