"""From the bytes of a CSV, TSV or Parquet file to its cells: encoding, separator, decimal sign and header are found and said.

Missing are empty cells and those of `MISSING`. A column's type is no matter of this file: cells of a text file stay text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mapsto_runtime.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Cells: TypeAlias = NDArray[np.object_]

__all__ = ["MISSING", "RawTable", "number_of", "read_raw"]

MISSING: Final = frozenset(("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"))
"""Cells that hold no value."""

_SEPARATORS: Final = {"\t": "tabs", ";": "';'", "|": "'|'", ",": "','"}
_LOOKED_AT: Final = 100
"""Lines that the separator is found by."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.I)
_WITH_COMMA = re.compile(r"[+-]?\d+(\.\d{3})*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_THOUSANDS_BY_DOTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_UNIT = re.compile(r"^[€$£¥]\s*|\s*[€$£¥%]$")
"""A currency or percent sign beside a number, which changes nothing of it: a column has one, or none."""
_WITH_DOT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTable:
    """The cells of a table as they stand in its file, column by column."""

    names: tuple[str, ...] | None
    """The header; None where there is none."""
    columns: tuple[Cells, ...]
    """Text as it stands, stripped of blanks; from Parquet numbers and words, None where there is no value."""
    decimal_commas: frozenset[int] = frozenset()
    """Columns, counted from 0, in which ``1,5`` is one and a half, and ``1.234`` a thousand and more."""
    decimal_points: bool = False
    """Whether some number in it can only have a decimal point."""
    ragged: dict[int, str] = field(default_factory=dict[int, str])
    """Rows, counted from 0, with more or fewer cells than the first line → what is wrong with them."""
    odd: dict[str, str] = field(default_factory=dict[str, str])
    """Columns of neither numbers nor words → their type; their cells are None."""
    notes: tuple[str, ...] = ()
    """What was found about the file that is not as usual."""

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


def read_raw(content: bytes, name: str, *, known: Collection[str] | None = None) -> RawTable:
    """The table in the bytes of a file.

    Parameters
    ----------
    name
        What messages call it.
    known
        Names of columns that a header would hold; a first line with few of them that may be a row of numbers is one. None: the
        first line is the header, whatever it holds.

    Raises
    ------
    DataError
        The file is neither text nor Parquet, or holds no line.
    """
    if content.startswith(b"PAR1"):
        return _parquet(content, name)
    text, notes = _text(content, name)
    lines = [line for line in text.splitlines() if line.strip()]
    separator = _separator(lines[:_LOOKED_AT], name)
    rows = [[cell.strip() for cell in row] for row in _rows(text, separator, name)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise DataError("holds no rows", where=name, hint="give one sample a row, with a header of column names")
    if separator != ",":
        notes.append(f"its columns are separated by {_SEPARATORS[separator]}")
    header = tuple(rows.pop(0)) if known is None or _is_header(rows[0], known) else None
    width = len(header if header is not None else rows[0])
    ragged = {
        number: f"{len(row)} cells where the {'first row' if header is None else 'header'} has {width}"
        for number, row in enumerate(rows)
        if len(row) != width
    }
    for number in ragged:
        rows[number] = (rows[number] + [""] * width)[:width]
    columns = tuple(_cells([row[i] for row in rows]) for i in range(width))
    commas, points = _decimal_commas(columns, separator)
    if commas:
        where = ", ".join(f"'{header[i]}'" if header is not None else str(i + 1) for i in commas[:5])
        notes.append(f"numbers have decimal commas (column {where}{', …' if len(commas) > 5 else ''})")
    return RawTable(
        names=header,
        columns=columns,
        decimal_commas=frozenset(range(width) if commas and not points else commas),
        decimal_points=points,
        ragged=ragged,
        notes=tuple(notes),
    )


def _decimal_commas(columns: Sequence[Cells], separator: str = "") -> tuple[list[int], bool]:
    """The columns in whose numbers commas are decimal signs, and whether some number in the table can only have a decimal point.

    Without such a one, what is a decimal comma in one column is it in all. In a file of comma-separated values ``1,234`` is a thousand.
    """
    found: list[int] = []
    points = False
    for number, cells in enumerate(columns):
        texts = [_UNIT.sub("", cell, count=1) for cell in cells if isinstance(cell, str)]
        commas = [cell for cell in texts if _WITH_COMMA.fullmatch(cell)]
        if commas and not (separator == "," and all(_THOUSANDS.fullmatch(cell) for cell in commas)):
            found.append(number)
        points = points or any(_WITH_DOT.fullmatch(cell) and not _THOUSANDS_BY_DOTS.fullmatch(cell) for cell in texts)
    return found, points


def number_of(cell: str, *, decimal_comma: bool = False) -> float | None:
    """The number in a cell of text; None where it holds none.

    >>> number_of("1.234,5", decimal_comma=True), number_of("1.234", decimal_comma=True), number_of("1.5", decimal_comma=True)
    (1234.5, 1234.0, 1.5)
    >>> number_of("1,234"), number_of("1.234"), number_of("true"), number_of("1_000")
    (1234.0, 1.234, 1.0, None)
    >>> number_of("$1,029.50"), number_of("9.1 %"), number_of("7,5 €", decimal_comma=True)
    (1029.5, 9.1, 7.5)
    """
    cell = _UNIT.sub("", cell, count=1)
    if decimal_comma:
        if _WITH_COMMA.fullmatch(cell) or _THOUSANDS_BY_DOTS.fullmatch(cell):
            return float(cell.replace(".", "").replace(",", "."))
    elif _THOUSANDS.fullmatch(cell):
        return float(cell.replace(",", ""))
    if _NUMBER.fullmatch(cell):
        return float(cell)
    return {"true": 1.0, "false": 0.0}.get(cell.lower())


def _text(content: bytes, name: str) -> tuple[str, list[str]]:
    """The text, and a note where it is not in UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16"), ["read as UTF-16"]
        except UnicodeDecodeError as error:
            raise DataError("broken UTF-16", where=name, hint="save it as UTF-8") from error
    if b"\0" in content:
        raise DataError(
            "is no text, so it holds no rows", where=name, hint="give a CSV, TSV or Parquet table, or an .npy array"
        )
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252"), ["read as Windows-1252 (Latin-1), since it is not UTF-8"]
    except UnicodeDecodeError:
        return content.decode("latin-1"), ["read as Latin-1, since it is not UTF-8"]


def _separator(lines: Sequence[str], name: str) -> str:
    """What splits every line into as many cells, more than one; else what is most frequent in the first line.

    A comma is tried last: within cells it is frequent, the others are not.
    """
    for separator in _SEPARATORS:
        counts = {len(row) for row in _rows("\n".join(lines), separator, name)}
        if len(counts) == 1 and counts.pop() > 1:
            return separator
    first = lines[0] if lines else ""
    return max(reversed(_SEPARATORS), key=first.count)


def _rows(text: str, separator: str, name: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"not a whole table: {error}", where=name, hint="give one sample a line") from error


def _is_header(first: Sequence[str], known: Collection[str]) -> bool:
    """Whether a line is one of names: half of the known ones, in small letters or large.

    Where none is known, what is neither a number nor missing.
    """
    titles, names = {cell.casefold() for cell in first}, {name.casefold() for name in known}
    there = len(titles & names)
    if there and 2 * there >= min(len(names), len(titles)):
        return True
    if known:
        return False
    return not all(cell in MISSING or number_of(cell) is not None or _WITH_COMMA.fullmatch(cell) for cell in first)


def _cells(values: Sequence[Any]) -> Cells:
    import numpy as np

    column = np.empty(len(values), object)
    column[:] = values
    return column


def _parquet(content: bytes, name: str) -> RawTable:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "reading Parquet needs pyarrow, which is not installed",
            where=name,
            hint="install it with: pip install pyarrow, or give a CSV table",
        ) from error
    try:
        table: Any = pyarrow.parquet.read_table(io.BytesIO(content))
        columns = [_parquet_cells(column, pa) for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"not a whole Parquet table ({error})", where=name, hint="write it again, as with pyarrow or pandas"
        ) from error
    names = tuple(map(str, table.column_names))
    odd = {title: str(table.column(title).type) for title, cells in zip(names, columns, strict=True) if cells is None}
    empty = _cells([None] * table.num_rows)
    filled = tuple(empty if cells is None else cells for cells in columns)
    return RawTable(names=names, columns=filled, decimal_commas=frozenset(_decimal_commas(filled)[0]), odd=odd)


def _parquet_cells(column: Any, pa: Any) -> Cells | None:
    """A column's numbers or words; None where it is of neither."""
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    if any(kind(column.type) for kind in numbers):
        return _cells(column.cast(pa.float64(), safe=False).to_pylist())
    words = (types.is_string, types.is_large_string, types.is_string_view)
    return _cells(column.to_pylist()) if any(kind(column.type) for kind in words) else None
