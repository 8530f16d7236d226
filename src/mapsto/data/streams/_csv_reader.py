"""A CSV as events: its header, where each line begins and ends, what its columns hold, and blocks of its lines."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mapsto.data.streams._cells import UNLABELLED, TimeCells, column_of, label_of, text_of, type_of, words_of
from mapsto.data.streams._roles import Roles
from mapsto.data.streams._sources import LONGEST, Idle, Source
from mapsto.errors import DataError
from mapsto.kinds import Block, ColumnType
from mapsto_runtime.preprocessing.raw_tables import MISSING
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HEAD_ROWS", "CsvReader"]

HEAD_ROWS = 100
"""Rows at the beginning of the file that say what its columns hold."""
_NO_ROW = "no row of a table, or longer than 1 MiB"
_SEPARATORS = (",", ";", "\t", "|")


class CsvReader:
    """The events of a source.

    Parameters
    ----------
    source
        It stands before the header; then behind it.
    roles
        What its columns are for.
    separator
        What stands between cells; None: what is most frequent in the header.
    types
        Columns whose type is known from elsewhere. Those that this source has not are missing in all its events.
    """

    def __init__(
        self,
        source: Source,
        roles: Roles,
        *,
        separator: str | None = None,
        types: Mapping[str, ColumnType | None] | None = None,
    ) -> None:
        names, separator, hint = _header(source, separator)
        start = source.tell()
        roles = roles.of_later(names) if types else roles
        self._roles, self._where = roles, source.where
        self._times = TimeCells(source.where, roles.time)
        absent = [name for name in types or () if name not in names]
        known = [*names, *absent]
        chosen = roles.chosen(known, source.where, hint=hint)
        width = len(names)
        head, _ = _Layout(start, separator, width, {}, {}, frozenset()).lines(source, start, HEAD_ROWS)
        source.seek(start)
        if not head and source.growing:
            raise DataError(
                "has no line after its header, and its first lines say which columns are numbers",
                where=source.where,
                hint="begin once the first events are there",
            )
        layout = _Layout(start, separator, width, {}, {}, frozenset())
        rows = [row for row in layout.cells(head) if not isinstance(row, str)]
        columns: list[Sequence[str]] = list(zip(*rows, strict=True)) if rows else [()] * width
        commas = _commas(names, columns, separator, self._where)
        places = {name: names.index(name) for name in (*chosen, *roles.others) if name in names}
        found = {
            name: (types or {}).get(name)
            or (type_of(columns[places[name]], comma=places[name] in commas) if name in places else None)
            for name in chosen
        }
        self._layout = layout._replace(places=places, types=found, commas=commas)

    @property
    def start(self) -> int:
        """The byte that the first event begins at."""
        return self._layout.start

    @property
    def types(self) -> Mapping[str, ColumnType | None]:
        """Of the columns to predict from; None where the first rows hold no value."""
        return self._layout.types

    def blocks(self, source: Source, at: int, size: int) -> Iterator[Block]:
        """Blocks of at most `size` events from byte `at` on; their positions are bytes."""
        idle = Idle()
        source.seek(at)
        said = -1
        while True:
            growing = source.growing
            lines, after = self._layout.lines(source, at, size)
            if lines:
                yield self._block(lines, after)
                idle.heard()
                source.done_to(after)
            elif not growing:
                return
            elif idle.wait():
                if said != after and _waits_in_a_quote(source, after, self._layout.separator):
                    said = after
                    logging.getLogger("mapsto").warning(
                        "%s: waits for the end of a quoted cell in the line at byte %s", self._where, after
                    )
                yield self._block([], after)
            at = after

    def _block(self, lines: Sequence[bytes], after: int) -> Block:
        import numpy as np

        layout, roles = self._layout, self._roles
        found = layout.cells(lines)
        broken = {event: row for event, row in enumerate(found) if isinstance(row, str)}
        rows = [[""] * layout.width if isinstance(row, str) else row for row in found] if broken else found
        columns = cast("list[Sequence[str]]", list(zip(*rows, strict=True)) if rows else [()] * layout.width)
        absent = ("",) * len(rows)
        cells = {name: columns[layout.places[name]] if name in layout.places else absent for name in layout.types}
        labels = absent if roles.target is None else columns[layout.places[roles.target]]
        has_y = np.array([label not in UNLABELLED for label in labels], np.bool_)
        has_x = np.ones(len(rows), np.bool_)
        if roles.id is not None and rows:
            given = [any(cell not in MISSING for cell in row) for row in zip(*cells.values(), strict=True)]
            has_x = np.array(given, np.bool_) | ~has_y
        return Block(
            times=self._times.read(columns[layout.places[roles.time]] if roles.time is not None else absent),
            ids=words_of(columns[layout.places[roles.id]] if roles.id is not None else absent),
            x={
                name: column_of(cells[name], kind, comma=layout.places.get(name) in layout.commas)
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

        if self._roles.task == "classes":
            return words_of([cell if has else "" for cell, has in zip(cells, has_y.tolist(), strict=True)])
        comma = self._layout.places.get(self._roles.target or "") in self._layout.commas
        y = np.full(len(cells), np.nan)
        for event in np.flatnonzero(has_y).tolist():
            number = label_of(cells[event], comma=comma)
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

    def lines(self, source: Source, at: int, most: int) -> tuple[list[bytes], int]:
        """At most so many lines from byte `at`, where the source stands, and the byte after them; of one that grows whole lines only."""
        lines: list[bytes] = []
        end = at
        while len(lines) < most:
            line, length = _next_line(source, at, self.separator)
            if not length:
                source.seek(end)
                source.require_whole(end)
                break
            at += length
            if line.strip() or length >= LONGEST:
                lines.append(line)
                end = at  # blank lines are behind no event
        return lines, end

    def cells(self, lines: Sequence[bytes]) -> list[list[str] | str]:
        """The cells of each line, without blanks around them; of what is no event why."""
        texts = [text_of(line) for line in lines]
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


def _header(source: Source, told: str | None) -> tuple[list[str], str, str]:
    """The names of the columns, what separates them, and advice where one is not there; the source then stands behind them."""
    where = source.where
    record, length = b"\n", 1
    while length and not record.strip():
        record, length = _next_line(source, source.tell(), told)
        if record[:4].lower() == b"sep=":  # what Excel writes above a table
            told, record = told or record[4:].decode("latin-1").strip(), b"\n"
    if source.growing and not length:
        raise DataError("has no header yet", where=where, hint="start it with a line of column names")
    header = text_of(record).lstrip("\ufeff").rstrip("\r\n")
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
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])]
    except (csv.Error, TypeError) as error:
        raise DataError(f"its header cannot be read: {error}", where=where, hint="set separator") from error
    if not any(names):
        raise DataError("has no header", where=where, hint="name its columns in the first line")
    return names, separator, _advice(record, names)


def _advice(record: bytes, names: Sequence[str]) -> str:
    """What may help where a header lacks a column."""
    if record.lstrip().startswith(b"{"):
        return "; its lines look like JSON: name the format jsonl"
    try:
        record.decode("utf-8")
    except UnicodeDecodeError:
        return "; it is not in UTF-8 and was read as Windows-1252: where its names look wrong, save it in UTF-8"
    return "" if len(names) > 1 else "; if they are several, set separator"


def _commas(names: Sequence[str], columns: Sequence[Sequence[str]], separator: str, where: str) -> frozenset[int]:
    """The columns in which ``1,5`` is one and a half."""
    from mapsto_runtime.preprocessing.raw_tables import decimal_commas

    commas, unsure = decimal_commas(columns, separator)
    doubtful = [f"'{short(names[place])}'" for place in sorted(unsure & commas)]
    if doubtful:
        logging.getLogger("mapsto").warning(
            "%s: in numbers such as 1,234 the comma is taken for a decimal sign (column %s); write them without commas if "
            "it parts thousands",
            where,
            few(doubtful),
        )
    return commas


def _next_line(source: Source, at: int, separator: str | None) -> tuple[bytes, int]:
    """The line at byte `at`, empty if it is longer than `LONGEST`, and its length; 0 if there is none, or none that is whole yet.

    With a quote that is not closed within `LONGEST` or up to the end, it is the one line and not all that follow.
    """
    first = line = source.readline(LONGEST)
    if len(first) == LONGEST and not first.endswith(b"\n"):
        length = len(first)
        while more := source.readline(LONGEST):
            length += len(more)
            if more.endswith(b"\n"):
                return b"", length
        return b"", 0 if source.growing else length
    is_open = _open_cell(separator or "".join(_SEPARATORS)).match
    goes_on = b'"' in first and is_open(first) is not None
    while goes_on and len(line) < LONGEST and (more := source.readline(LONGEST)):
        line += more
        goes_on = b'"' not in more or is_open(line) is not None
    if len(line) < LONGEST and (goes_on or not line.endswith(b"\n")) and source.growing:
        return b"", 0
    if goes_on:
        line = first
        source.seek(at + len(first))
    return line, len(line)


def _waits_in_a_quote(source: Source, at: int, separator: str) -> bool:
    """Whether there is a whole line at byte `at` that ends within a quoted cell."""
    line = source.readline(LONGEST)
    source.seek(at)
    return line.endswith(b"\n") and _open_cell(separator).match(line) is not None


@lru_cache
def _open_cell(separators: str) -> re.Pattern[bytes]:
    """Matches a line that ends within a quoted cell. Only a quote at the beginning of a cell opens one."""
    between = f"[{re.escape(separators)}]"
    rest = f"[^{re.escape(separators)}]*"
    quoted = r' *"[^"]*(?:""[^"]*)*'
    return re.compile(rf'(?:(?:{quoted}"(?!"){rest}| *(?![ "]){rest}){between})*{quoted}\Z'.encode())
