"""From the bytes of a CSV, TSV, JSON Lines or Parquet file to its cells: encoding, separator, decimal sign and header are found and said.

Missing are empty cells and those of `MISSING`. A column's type is no matter of this file: cells of a text file stay text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.json_lines import WrittenNumber, is_json_lines, read_json_lines
from mapsto_runtime.preprocessing.lines import lines_of
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Cells: TypeAlias = NDArray[np.object_]

__all__ = ["MISSING", "RawTable", "decimal_commas", "decoded", "number_of", "read_raw", "unit_of"]

MISSING: Final = frozenset(("", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"))
"""Cells that hold no value."""

_SEPARATORS: Final = {"\t": "tabs", ";": "';'", "|": "'|'", ",": "','"}
_LOOKED_AT: Final = 100
"""Lines that the separator is found by."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.I)
_WITH_COMMA = re.compile(r"[+-]?\d+(\.\d{3})*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?([1-9]\d{0,2}(,\d{3})+|[1-9]\d?(,\d{2})+,\d{3})(\.\d+)?")
"""``1,234.5``, and as in India ``12,34,567``."""
_THOUSANDS_BY_DOTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_THOUSANDS_BY_GAPS = re.compile(r"([+-]?[1-9]\d{0,2}(?:[ \u00a0\u2009\u202f'’]\d{3})+)([.,]\d+)?")
_SMALL = re.compile(r"[+-]?\d{1,3}")
_WITH_DOT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_DIGITS = re.compile(r"[+-]?[\d.,]*")
_TRUTHS: Final = {"true": 1.0, "false": 0.0}
_MONEY = (
    r"(?:US|CA|AU|NZ|HK|[ACRS])?\$|[€£¥₹₽₩₺₴₪฿₫₱₦]|kr\.?|zł|Kč|Ft|Fr\.|"
    r"(?:EUR|USD|GBP|CHF|JPY|CNY|RMB|INR|BRL|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|TRY|MXN|ZAR|KRW|SGD|HKD|ILS|THB|RUB|UAH)(?![A-Za-z])"
)
_UNIT = re.compile(rf"(?P<before>%|{_MONEY})\s*(?P<first>.+)|(?P<last>.+?)\s*(?P<after>%|‰|{_MONEY})", re.DOTALL)
"""A currency or percent sign beside a number, which changes nothing of it."""
_COMMA_PARTS_THOUSANDS = frozenset(
    ("$", "US$", "CA$", "AU$", "A$", "C$", "£", "¥", "₹", "₩", "USD", "GBP", "JPY", "CNY", "INR")
)
_DOT_PARTS_THOUSANDS = frozenset(("€", "EUR", "₺", "TRY", "R$", "BRL", "kr", "kr.", "DKK", "NOK"))
"""Units of places where that sign parts thousands: with three digits behind each, ``$1,234`` and ``1.234 €`` can be nothing else."""
_NO_TEXT: Final = {
    b"PK\x03\x04": "an Excel workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "a compressed file",
    b"%PDF": "a PDF document",
}
_LONGEST = 40
"""Letters of a cell that may be a number with a unit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTable:
    """The cells of a table as they stand in its file, column by column."""

    names: tuple[str, ...] | None
    """The header; None where there is none."""
    columns: tuple[Cells, ...]
    """Text as it stands, stripped of blanks; from Parquet and JSON numbers and words, None where there is no value."""
    decimal_commas: frozenset[int] = frozenset()
    """Columns, counted from 0, in which ``1,5`` is one and a half, and ``1.234`` a thousand and more."""
    unsure: frozenset[int] = frozenset()
    """Columns of which only the rest of the table tells whether ``1,234`` is a thousand and more, if anything does."""
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
    text, notes = decoded(content, name)
    if is_json_lines(text):
        named, odd = read_json_lines(text, name)
        return RawTable(
            names=tuple(named),
            columns=tuple(named.values()),
            odd=odd,
            decimal_points=True,
            notes=tuple(notes),
        )
    text, told = _told_separator(text)
    lines = [line for line in lines_of(text) if line.strip()]
    separator = told or _separator(lines[:_LOOKED_AT], name)
    rows = [[cell.strip() for cell in row] for row in _rows(text, separator, name)]
    rows, empty = _with_values(rows)
    if not rows:
        raise DataError("holds no rows", where=name, hint="give one sample a row, with a header of column names")
    if separator != ",":
        notes.append(f"its columns are separated by {_SEPARATORS[separator]}")
    header = tuple(rows.pop(0)) if known is None or _is_header(rows[0], known) else None
    if empty:
        below = empty[0] - (header is not None)
        count = (
            "1 row in which every cell is empty is"
            if len(empty) == 1
            else f"{len(empty)} rows in which every cell is empty are"
        )
        notes.append(f"{count} passed over and not counted, {f'below row {below}' if below else 'above the first'}")
    width = len(header if header is not None else rows[0])
    ragged: dict[int, str] = {}
    for number, row in enumerate(rows):
        if len(row) == width:
            continue
        if len(row) < width or any(row[width:]):  # separators at the end of a line are no cells
            ragged[number] = (
                f"{len(row)} cell{'' if len(row) == 1 else 's'} where the {'first row' if header is None else 'header'} has {width}"
            )
        rows[number] = (row + [""] * width)[:width]
    columns = tuple(_cells(column) for column in zip(*rows, strict=True)) if rows else (_cells([]),) * width
    if header is not None:
        there = [i for i in range(width) if header[i] or any(columns[i])]  # what spreadsheets save beside a table
        header, columns = tuple(header[i] for i in there), tuple(columns[i] for i in there)
    commas = _decimal_commas(columns, separator)
    notes += commas.notes(header)
    return RawTable(
        names=header,
        columns=columns,
        decimal_commas=commas.columns,
        unsure=commas.unsure,
        decimal_points=commas.points,
        ragged=ragged,
        notes=tuple(notes),
    )


def _with_values(rows: list[list[str]]) -> tuple[list[list[str]], list[int]]:
    """The rows in which a cell holds something; and of each other row between them how many of these stand above it.

    Empty lines, which are no rows, and the rows of separators that spreadsheets save above and below a table are left out of the latter.

    >>> _with_values([["a", "b"], ["1", ""], ["", ""], [""], ["2", "3"], ["", ""]])
    ([['a', 'b'], ['1', ''], ['2', '3']], [2])
    """
    last = max((place for place, row in enumerate(rows) if any(row)), default=-1)
    kept: list[list[str]] = []
    above: list[int] = []
    for place, row in enumerate(rows):
        if any(row):
            kept.append(row)
        elif len(row) > 1 and kept and place < last:
            above.append(len(kept))
    return kept, above


@dataclass(frozen=True, kw_only=True)
class _Commas:
    """What commas and dots are in the numbers of a table."""

    sure: tuple[int, ...]
    """Columns that show decimal commas."""
    columns: frozenset[int]
    """All that are read so."""
    unsure: frozenset[int]
    points: bool

    def notes(self, header: Sequence[str] | None) -> list[str]:
        """A sentence on each way that numbers are not written as usual."""

        def named(places: Collection[int]) -> str:
            said = ", ".join(f"'{short(header[i])}'" if header is not None else str(i + 1) for i in sorted(places)[:5])
            return f"column{'s' if len(places) > 1 else ''} {said}{', …' if len(places) > 5 else ''}"

        found: list[str] = []
        read = self.unsure & self.columns
        if self.sure:
            found.append(f"numbers have decimal commas ({named(self.sure)}), dots in them part thousands")
        if read and not self.sure:
            found.append(f"in numbers such as 1,234 the comma is taken for a decimal sign ({named(read)})")
        if self.unsure - read:
            found.append(f"in numbers such as 1,234 the comma is taken to part thousands ({named(self.unsure - read)})")
        return found


def decimal_commas(columns: Sequence[Iterable[Any]], separator: str) -> tuple[frozenset[int], frozenset[int]]:
    """The columns, counted from 0, in which ``1,5`` is one and a half, and those of which only the rest of the table tells.

    >>> decimal_commas([("1,5", "2"), ("3", "1.000")], ";")
    (frozenset({0, 1}), frozenset())
    """
    commas = _decimal_commas(columns, separator)
    return commas.columns, commas.unsure


def _decimal_commas(columns: Sequence[Iterable[Any]], separator: str = "") -> _Commas:
    """What commas and dots are in each column, by its numbers, its units, the other columns and the separator, in this order.

    Without a number in the table that can only have a decimal point, what is a decimal comma in one column is it in all.
    """
    sure: list[int] = []
    unsure: list[int] = []
    points = thousands = False
    for place, cells in enumerate(columns):
        texts = [cell for cell in cells if isinstance(cell, str)]
        whole = "\n".join(texts)
        if "," not in whole and ("." not in whole or any(map(_is_point, texts))):
            points = points or "." in whole
            continue
        kind = _sign_of(texts)
        if kind == "decimal":
            sure.append(place)
        elif kind == "unsure" and separator != ",":  # between cells, so that within a number it is no decimal sign
            unsure.append(place)
        thousands = thousands or kind == "thousands"
        points = points or kind == "point"
    english = points or thousands
    decimal = not english if sure and separator != ";" else bool(sure) or (separator == ";" and not english)
    found = frozenset(sure) | (frozenset(unsure) if decimal else frozenset())
    return _Commas(
        sure=tuple(sure),
        columns=frozenset(range(len(columns))) if sure and not english else found,
        unsure=frozenset(unsure),
        points=points,
    )


def _is_point(text: str) -> bool:
    return _WITH_DOT.fullmatch(text) is not None and _THOUSANDS_BY_DOTS.fullmatch(text) is None


def _sign_of(texts: Sequence[str]) -> Literal["decimal", "thousands", "point", "unsure"] | None:
    """What the commas of a column are, or that its numbers have decimal points; None where it shows neither."""
    parts = [_parts(text) for text in texts if text not in MISSING]
    numbers = [number for number, _ in parts]
    units = {unit for _, unit in parts}
    by_comma = [number for number in numbers if _THOUSANDS.fullmatch(number)]
    by_dots = [number for number in numbers if _THOUSANDS_BY_DOTS.fullmatch(number)]
    if any(_WITH_COMMA.fullmatch(number) and not _THOUSANDS.fullmatch(number) for number in numbers):
        return "decimal"
    if any(map(_is_point, numbers)):
        return "point"
    if by_dots and len(by_dots) + sum(bool(_SMALL.fullmatch(number)) for number in numbers) == len(numbers):
        dotted = any(number.count(".") > 1 for number in by_dots) or bool(units & _DOT_PARTS_THOUSANDS)
        return "decimal" if dotted else None
    if not by_comma:
        return None
    plain = any(_SMALL.fullmatch(number) for number in numbers)
    several = any(number.count(",") > 1 or "." in number for number in by_comma)
    return "thousands" if plain or several or bool(units & _COMMA_PARTS_THOUSANDS) else "unsure"


def number_of(cell: str, *, decimal_comma: bool = False) -> float | None:
    """The number in a cell of text; None where it holds none.

    >>> number_of("1.234,5", decimal_comma=True), number_of("1.234", decimal_comma=True), number_of("1.5", decimal_comma=True)
    (1234.5, 1234.0, 1.5)
    >>> number_of("1,234"), number_of("1.234"), number_of("true"), number_of("1_000")
    (1234.0, 1.234, 1.0, None)
    >>> number_of("$1,029.50"), number_of("9.1 %"), number_of("7,5 €", decimal_comma=True), number_of("($5)"), number_of("1 200 zł")
    (1029.5, 9.1, 7.5, -5.0, 1200.0)
    """
    if not decimal_comma and _NUMBER.fullmatch(cell):
        return float(cell)
    truth = _TRUTHS.get(cell.lower())
    if truth is not None:
        return truth
    cell, _ = _parts(cell)
    if decimal_comma:
        if _WITH_COMMA.fullmatch(cell) or _THOUSANDS_BY_DOTS.fullmatch(cell):
            return float(cell.replace(".", "").replace(",", "."))
    elif _THOUSANDS.fullmatch(cell):
        return float(cell.replace(",", ""))
    return float(cell) if _NUMBER.fullmatch(cell) else None


def unit_of(cell: str) -> str:
    """The currency or percent sign beside the number in a cell; empty where there is none.

    >>> unit_of("-$1,029.50"), unit_of("1.200 €"), unit_of("12"), unit_of("US$")
    ('$', '€', '', '')
    """
    number, unit = _parts(cell)
    return unit if any(letter.isdigit() for letter in number) else ""


def _parts(cell: str) -> tuple[str, str]:
    """A number without its unit and what parts its thousands where that is a gap, and the unit.

    Brackets, as accountants write, and a sign before the unit go to the number.

    >>> _parts("($1,200)"), _parts("-£5"), _parts("1 200,5 zł"), _parts("CHF 1'000")
    (('-1,200', '$'), ('-5', '£'), ('1200,5', 'zł'), ('1000', 'CHF'))
    """
    if len(cell) > _LONGEST or _DIGITS.fullmatch(cell):
        return cell, ""
    cell, sign, unit = cell.replace("−", "-"), "", ""
    if cell.startswith("(") and cell.endswith(")"):
        cell, sign = cell[1:-1].strip(), "-"
    if cell[:1] in ("+", "-") and not cell[1:2].isdigit():
        cell, sign = cell[1:].strip(), sign or cell[0].strip("+")
    found = _UNIT.fullmatch(cell)
    if found is not None:
        cell, unit = found["first"] or found["last"], found["before"] or found["after"]
    parted = _THOUSANDS_BY_GAPS.fullmatch(cell)
    if parted is not None:
        cell = re.sub(r"[^\d+-]", "", parted[1]) + (parted[2] or "")
    return sign + cell, unit


def decoded(content: bytes, name: str) -> tuple[str, list[str]]:
    """The text, and a note where it is not in UTF-8."""
    for start, kind in _NO_TEXT.items():
        if content.startswith(start):
            raise DataError(f"is {kind}, not a table in text", where=name, hint="save it as CSV (UTF-8) or Parquet")
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


def _told_separator(text: str) -> tuple[str, str]:
    """The text without a first line such as ``sep=;``, as Excel writes it, and the separator that it tells."""
    first, _, rest = text.partition("\n")
    told = first.strip('\r\n "')
    return (rest, told[4:]) if told[:4].lower() == "sep=" and told[4:] in _SEPARATORS else (text, "")


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
            hint="install it with: pip install 'mapsto-runtime[parquet]', or give a CSV table",
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
    commas = _decimal_commas(filled)
    found = frozenset(commas.sure)
    return RawTable(names=names, columns=filled, decimal_commas=found, unsure=commas.unsure, odd=odd)


def _parquet_cells(column: Any, pa: Any) -> Cells | None:
    """A column's numbers or words; None where it is of neither."""
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_integer(column.type):
        whole = column.to_pylist()
        if any(cell is not None and int(float(cell)) != cell for cell in whole):
            return _cells([None if cell is None else WrittenNumber(str(cell)) for cell in whole])
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    if any(kind(column.type) for kind in numbers):
        return _cells(column.cast(pa.float64(), safe=False).to_pylist())
    words = (types.is_string, types.is_large_string, types.is_string_view)
    if not any(kind(column.type) for kind in words):
        return None
    return _cells([cell.strip() if isinstance(cell, str) else cell for cell in column.to_pylist()])
