"""A CSV file as a stream: a line is an event, and its position is the byte that it begins at, so that going on costs no reading again.

A line without a value of the target is a question; one with an id and a target alone is a label that comes late. Cells are understood as
those of a table are: decimal commas and Windows-1252 are found by themselves, and ``007`` is a word.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, NamedTuple, cast

from pydantic import Field

from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Block, ColumnType, Json, Stream, Task
from mapsto_runtime.preprocessing.raw_tables import MISSING
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Csv"]

_HEAD_ROWS = 100
"""Rows at the beginning of the file that say what its columns hold."""
_LONGEST = 1 << 20
"""Bytes of a line, with the line breaks in its quoted cells; a quote that is not closed by then is part of its cell."""
_NO_ROW = "no row of a table, or longer than 1 MiB"
_LOOK_SECONDS = 0.1
"""How often a file that is followed is looked at."""
_IDLE_SECONDS = 1.0
_UNLABELLED = MISSING - {"NaN", "nan"}
"""Cells of the target that say nothing. NaN is a label that something failed to work out: it is given on, and set aside."""
_SEPARATORS = (",", ";", "\t", "|")
_CODE = re.compile(r"[+-]?0\d+")
"""``007``, a number that begins with a zero, is a code, whose zeros count."""


class Csv(Stream):
    r"""The lines of a file with a header, features as numbers where the first 100 rows hold nothing else, else as words.

    A column without a value there is what its first value is. What is no event, such as a line with a cell too many, is set aside.

    Raises `DataError` for a file without a header or that is shortened, replaced or removed while it is followed, `SpecError` for a column
    that it has not.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "doors.csv"
    >>> _ = file.write_text("width,colour,open\n0.8,red,yes\n1.2,,no\n")
    >>> block = next(Csv(file=str(file), target="open").open())
    >>> block.x["width"].tolist(), block.x["colour"].tolist(), block.y.tolist(), block.next
    ([0.8, 1.2], ['red', ''], ['yes', 'no'], 38)
    """

    version: ClassVar[int] = 2

    file: str
    """The file: a path, or a path inside the data folder."""
    target: str
    """The column to predict."""
    task: Task = "classes"  # type: ignore[override] - a field where the base has a property
    """Whether the target holds classes, or numbers; a label that is no number is then set aside."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
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
        return {name: kind for name, kind in self._layout.types.items() if kind is not None}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        layout = self._layout
        at = layout.start if position is None else cast("int", position)
        with self._opened() as file:
            self._require_line_start(file, at)
            file.seek(at)
            looked = time.monotonic()
            while True:
                lines, after = self._lines(file, at, size, layout.separator)
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

    def _opened(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror}", where=str(self._path), hint="check that it is there and readable"
            ) from error

    @cached_property
    def _layout(self) -> _Layout:
        """What the header and the first rows say."""
        with self._opened() as file:
            names, separator = self._header(file)
            start = file.tell()
            chosen = self._chosen(names)
            layout = _Layout(
                start, separator, len(names), {name: names.index(name) for name in chosen}, {}, frozenset()
            )
            head, _ = self._lines(file, start, _HEAD_ROWS, separator)
            if not head and self.follow:
                raise DataError(
                    "has no line after its header, and its first lines say which columns are numbers",
                    where=str(self._path),
                    hint="begin once the first events are there",
                )
            rows = [row for row in layout.cells(head) if not isinstance(row, str)]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
        commas = self._commas(names, columns, separator)
        types = {name: _type_of(columns[place], comma=place in commas) for name, place in layout.places.items()}
        others = {name: names.index(name) for name in (self.target, self.id, self.time) if name is not None}
        return layout._replace(places={**layout.places, **others}, types=types, commas=commas)

    def _header(self, file: BinaryIO) -> tuple[list[str], str]:
        """The names of the columns and what separates them; the file then stands behind them."""
        where, told = str(self._path), self.separator
        record, length = b"\n", 1
        while length and not record.strip():
            record, length = self._next_line(file, file.tell(), told)
            if record[:4].lower() == b"sep=":  # what Excel writes above a table
                told, record = told or record[4:].decode("latin-1").strip(), b"\n"
        if self.follow and not length:
            raise DataError("has no header yet", where=where, hint="start it with a line of column names")
        header = _text(record).lstrip("\ufeff").rstrip("\r\n")
        if "\0" in header:
            raise DataError("is no text", where=where, hint="save it as CSV in UTF-8")
        if "\r" in header:
            raise DataError(
                "its lines end in a carriage return alone",
                where=where,
                hint="save it with line ends of Unix or Windows",
            )
        separator = told or max(reversed(_SEPARATORS), key=header.count)
        try:
            names = [
                name.strip() for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
            ]
        except (csv.Error, TypeError) as error:
            raise DataError(f"its header cannot be read: {error}", where=where, hint="set separator") from error
        if not any(names):
            raise DataError("has no header", where=where, hint="name its columns in the first line")
        return names, separator

    def _chosen(self, names: list[str]) -> tuple[str, ...]:
        """The columns to predict from. Raises `SpecError` or `DataError` where the header does not fit the fields."""
        where = str(self._path)
        roles = {"target": self.target, "id": self.id, "time": self.time}
        roles = {role: name for role, name in roles.items() if name is not None}
        for name in (*roles.values(), *(self.features or ())):
            if name not in names:
                separated = "" if len(names) > 1 else "; if they are several, set separator"
                raise SpecError(
                    f"there is no column '{short(name)}'", where=where, hint=nearest(name, names, most=20) + separated
                )
        for role, name in roles.items():
            others = [other for other, its in roles.items() if its == name and other != role]
            if others or name in (self.features or ()):
                raise SpecError(
                    f"column '{short(name)}' is the {role}, and {' and '.join(others) if others else 'one of features'} too",
                    where=where,
                    hint="give each a column of its own",
                )
        chosen = self.features or tuple(name for name in names if name and name not in roles.values())
        if not chosen:
            raise SpecError(
                f"needs a column other than the target '{self.target}', the id and the time to predict from",
                where=where,
                hint=f"its columns: {few(names, 20)}",
            )
        for name in (*chosen, *roles.values()):
            if names.count(name) > 1 or chosen.count(name) > 1:
                times = names.count(name)
                raise DataError(
                    f"{times} columns are named '{short(name)}'"
                    if times > 1
                    else f"features name '{short(name)}' twice",
                    where=where,
                    hint="rename or remove all but one",
                )
        return chosen

    def _commas(self, names: Sequence[str], columns: Sequence[Sequence[str]], separator: str) -> frozenset[int]:
        """The columns in which ``1,5`` is one and a half."""
        from mapsto_runtime.preprocessing.raw_tables import decimal_commas

        commas, unsure = decimal_commas(columns, separator)
        doubtful = [f"'{short(names[place])}'" for place in sorted(unsure & commas)]
        if doubtful:
            logging.getLogger("mapsto").warning(
                "%s: in numbers such as 1,234 the comma is taken for a decimal sign (column %s); write them without commas if "
                "it parts thousands",
                self._path,
                few(doubtful),
            )
        return commas

    def _lines(self, file: BinaryIO, at: int, most: int, separator: str) -> tuple[list[bytes], int]:
        """At most so many lines from byte `at`, where the file stands, and the byte after them; of a followed file whole lines only."""
        lines: list[bytes] = []
        while len(lines) < most:
            line, length = self._next_line(file, at, separator)
            if not length:
                file.seek(at)
                self._require_whole(file, at)
                break
            at += length
            if line.strip() or length >= _LONGEST:
                lines.append(line)
        return lines, at

    def _next_line(self, file: BinaryIO, at: int, separator: str | None) -> tuple[bytes, int]:
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
        is_open = _open_cell(separator or "".join(_SEPARATORS)).match
        goes_on = b'"' in first and is_open(first) is not None
        while goes_on and len(line) < _LONGEST and (more := file.readline(_LONGEST)):
            line += more
            goes_on = b'"' not in more or is_open(line) is not None
        if self.follow and len(line) < _LONGEST and (goes_on or not line.endswith(b"\n")):
            return b"", 0
        if goes_on:
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
        """Raises `DataError` where a file that was read up to byte `at` is no longer the one that it was."""
        length = file.seek(0, os.SEEK_END)
        file.seek(at)
        hint = "append to it only, or start another store"
        if length < at:
            raise DataError(
                f"has {length} bytes, and was read up to byte {at} before: it has become shorter",
                where=str(self._path),
                hint=hint,
            )
        if not self.follow:
            return
        try:
            there = self._path.stat()
        except OSError as error:
            raise DataError("was removed while it was followed", where=str(self._path), hint=hint) from error
        if not os.path.samestat(there, os.fstat(file.fileno())):
            raise DataError("was replaced by another file while it was followed", where=str(self._path), hint=hint)

    def _block(self, lines: Sequence[bytes], after: int) -> Block:
        import numpy as np

        layout = self._layout
        found = layout.cells(lines)
        broken = {event: row for event, row in enumerate(found) if isinstance(row, str)}
        rows = [[""] * layout.width if isinstance(row, str) else row for row in found] if broken else found
        columns = cast("list[Sequence[str]]", list(zip(*rows, strict=True)) if rows else [()] * layout.width)
        cells = {name: columns[layout.places[name]] for name in layout.types}
        labels = columns[layout.places[self.target]]
        ids = columns[layout.places[self.id]] if self.id is not None else ("",) * len(rows)
        has_y = np.array([label not in _UNLABELLED for label in labels], np.bool_)
        has_x = np.ones(len(rows), np.bool_)
        if self.id is not None and rows:
            given = [any(cell not in MISSING for cell in row) for row in zip(*cells.values(), strict=True)]
            has_x = np.array(given, np.bool_) | ~has_y
        return Block(
            times=np.array([_time(cell) for cell in columns[layout.places[self.time]]], np.float64)
            if self.time is not None
            else np.full(len(rows), np.nan),
            ids=_words(ids),
            x={
                name: _column(cells[name], kind, comma=layout.places[name] in layout.commas)
                for name, kind in layout.types.items()
            },
            has_x=has_x,
            y=self._labels(labels, has_y, broken),
            has_y=has_y,
            next=after,
            broken=broken,
        )

    def _labels(self, cells: Sequence[str], has_y: NDArray[Any], broken: dict[int, str]) -> NDArray[Any]:
        """The classes or numbers of a block; what is no number is added to `broken`."""
        import numpy as np

        if self.task == "classes":
            return _words([cell if has else "" for cell, has in zip(cells, has_y.tolist(), strict=True)])
        layout = self._layout
        comma = layout.places[self.target] in layout.commas
        y = np.full(len(cells), np.nan)
        for event in np.flatnonzero(has_y).tolist():
            number = _label(cells[event], comma=comma)
            if number is None:
                broken.setdefault(event, "a label that is no number")
            else:
                y[event] = number
        return y


class _Layout(NamedTuple):
    """What is known of a file before its events."""

    start: int
    """The first byte after the header."""
    separator: str
    width: int
    places: dict[str, int]
    """Of the columns that are used."""
    types: dict[str, ColumnType | None]
    """Of the columns to predict from; None where the first rows hold no value."""
    commas: frozenset[int]
    """Columns with decimal commas."""

    def cells(self, lines: Sequence[bytes]) -> list[list[str] | str]:
        """The cells of each line, without blanks around them; of what is no event why."""
        texts = [_text(line) for line in lines]
        try:
            rows = [] if "\0" in "".join(texts) else self._read(texts)
        except csv.Error:
            rows = []
        if len(rows) == len(texts):
            return [self._fitting(row) for row in rows]
        return [self._alone(text) for text in texts]  # a line with a stray quote is no reason to misread the others

    def _alone(self, text: str) -> list[str] | str:
        if "\0" in text:
            return _NO_ROW
        try:
            return self._fitting(next(iter(self._read([text])), []))
        except csv.Error:
            return _NO_ROW

    def _read(self, texts: Sequence[str]) -> list[list[str]]:
        return list(csv.reader(texts, delimiter=self.separator, skipinitialspace=True))

    def _fitting(self, row: list[str]) -> list[str] | str:
        if not row:
            return _NO_ROW
        if len(row) != self.width:
            if len(row) < self.width or any(row[self.width :]):  # separators at the end of a line are no cells
                return f"{len(row)} cell{'' if len(row) == 1 else 's'} where the header has {self.width}"
            row = row[: self.width]
        return [cell.strip() for cell in row]


@lru_cache
def _open_cell(separators: str) -> re.Pattern[bytes]:
    """Matches a line that ends within a quoted cell. Only a quote at the beginning of a cell opens one."""
    between = f"[{re.escape(separators)}]"
    rest = f"[^{re.escape(separators)}]*"
    quoted = r' *"[^"]*(?:""[^"]*)*'
    return re.compile(rf'(?:(?:{quoted}"(?!"){rest}| *(?![ "]){rest}){between})*{quoted}\Z'.encode())


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _number(cell: str, *, comma: bool) -> float | None:
    from mapsto_runtime.preprocessing.raw_tables import number_of

    return number_of(cell, decimal_comma=comma)


def _label(cell: str, *, comma: bool) -> float | None:
    """The number in a cell of the target, NaN among them; None where it holds none."""
    number = _number(cell, comma=comma)
    return math.nan if number is None and cell.lower() == "nan" else number


def _type_of(cells: Sequence[str], *, comma: bool) -> ColumnType | None:
    there = [cell for cell in cells if cell not in MISSING]
    if not there:
        return None
    if any(_CODE.fullmatch(cell) for cell in there):
        return "word"
    return "word" if any(_number(cell, comma=comma) is None for cell in there) else "number"


def _column(cells: Sequence[str], kind: ColumnType | None, *, comma: bool) -> NDArray[Any]:
    """Numbers with NaN for a missing one, or words; where others stand in a column of numbers, or its kind is not known, both."""
    import numpy as np

    if kind == "word":
        return _words(["" if cell in MISSING else cell for cell in cells])
    if kind == "number":
        try:
            numbers = np.array(cells, dtype=np.str_).astype(np.float64) if len(cells) else np.zeros(0)
            if not comma and "_" not in "".join(cells):  # which Python and NumPy allow within a number
                return numbers
        except ValueError:
            pass
        read = [math.nan if cell in MISSING else _number(cell, comma=comma) for cell in cells]
        if None not in read:
            return np.array(read, np.float64)
        return _words(
            ["" if cell in MISSING else cell if n is None else n for cell, n in zip(cells, read, strict=True)]
        )
    return _words(["" if cell in MISSING else _value(cell, comma=comma) for cell in cells])


def _value(cell: str, *, comma: bool) -> float | str:
    """A cell of a column that is not known to be one of numbers or of words."""
    number = None if _CODE.fullmatch(cell) else _number(cell, comma=comma)
    return cell if number is None else number


def _words(cells: Sequence[Any]) -> NDArray[Any]:
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
