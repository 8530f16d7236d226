"""Cells of text as numbers, words, labels and times; what a missing one is."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mapsto.kinds import ColumnType
from mapsto_runtime.preprocessing.raw_tables import MISSING, number_of
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["UNLABELLED", "TimeCells", "column_of", "label_of", "seconds_of", "text_of", "type_of", "words_of"]

UNLABELLED = MISSING - {"NaN", "nan"}
"""Cells of the target that say nothing. NaN is a label that something failed to work out: it is given on, and set aside."""
_LATEST = 1e15
"""Seconds of the epoch; a larger number is no time."""
_DAY_FIRST = re.compile(
    r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})(?:[ T]+(?P<hour>\d{1,2})(?P<rest>:.*))?"
)
_YEAR_FIRST = re.compile(
    r"(?P<year>\d{4})[/.](?P<month>\d{1,2})[/.](?P<day>\d{1,2})(?:[ T]+(?P<hour>\d{1,2})(?P<rest>:.*))?"
)
"""What can be one date alone: with dots the day comes first, and after a year the month. 3/4/2026 may be two."""
_CODE = re.compile(r"[+-]?0\d+")
"""``007``, a number that begins with a zero, is a code, whose zeros count."""


def text_of(line: bytes) -> str:
    """The text of a line: UTF-8, else Windows-1252, else Latin-1."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def type_of(cells: Sequence[str], *, comma: bool) -> ColumnType | None:
    """What the cells of a column hold; None where all are missing. `comma` says whether 1,5 is one and a half, here and below.

    >>> type_of(["1.5", "", "3"], comma=False), type_of(["007"], comma=False), type_of(["NA"], comma=False)
    ('number', 'word', None)
    """
    there = [cell for cell in cells if cell not in MISSING]
    if not there:
        return None
    if any(_CODE.fullmatch(cell) for cell in there):
        return "word"
    return "word" if any(number_of(cell, decimal_comma=comma) is None for cell in there) else "number"


def column_of(cells: Sequence[str], kind: ColumnType | None, *, comma: bool) -> NDArray[Any]:
    """Numbers with NaN for a missing one, or words; where others stand in a column of numbers, or its kind is not known, both."""
    import numpy as np

    if kind == "word":
        return words_of(["" if cell in MISSING else cell for cell in cells])
    if kind == "number":
        try:
            numbers = np.array(cells, dtype=np.str_).astype(np.float64) if len(cells) else np.zeros(0)
            if not comma and "_" not in "".join(cells):  # which Python and NumPy allow within a number
                return numbers
        except ValueError:
            pass
        read = [math.nan if cell in MISSING else number_of(cell, decimal_comma=comma) for cell in cells]
        if None not in read:
            return np.array(read, np.float64)
        return words_of(
            ["" if cell in MISSING else cell if n is None else n for cell, n in zip(cells, read, strict=True)]
        )
    return words_of(["" if cell in MISSING else _value(cell, comma=comma) for cell in cells])


def _value(cell: str, *, comma: bool) -> float | str:
    """A cell of a column that is not known to be one of numbers or of words."""
    number = None if _CODE.fullmatch(cell) else number_of(cell, decimal_comma=comma)
    return cell if number is None else number


def label_of(cell: str, *, comma: bool) -> float | None:
    """The number in a cell of the target, NaN among them; None where it holds none."""
    number = number_of(cell, decimal_comma=comma)
    return math.nan if number is None and cell.lower() == "nan" else number


def words_of(cells: Sequence[Any]) -> NDArray[Any]:
    """An array of objects."""
    import numpy as np

    words = np.empty(len(cells), object)
    words[:] = cells
    return words


def seconds_of(cell: str) -> float | None:
    """Seconds of the epoch of a time as a number, as in ISO 8601, or as 31.12.2026 8:00 or 2026/12/31 (UTC where it names no zone).

    NaN for an empty cell, None for no time.

    >>> seconds_of("12.5"), seconds_of("1970-01-02T00:00:00+01:00"), seconds_of("2.1.1970 8:00"), seconds_of("1970/1/2")
    (12.5, 82800.0, 115200.0, 86400.0)
    >>> seconds_of("soon")
    """
    if cell in MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(_in_iso(cell))
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _in_iso(cell: str) -> str:
    """A date with its day first and dots, or its year first and slashes or dots, as ISO 8601 has it; other cells as they are."""
    found = _DAY_FIRST.fullmatch(cell) or _YEAR_FIRST.fullmatch(cell)
    if found is None:
        return cell
    date = f"{found['year']}-{found['month']:>02}-{found['day']:>02}"
    return date if found["hour"] is None else f"{date} {found['hour']:>02}{found['rest']}"


class TimeCells:
    """The times of events, from their cells in a column; what is no time is said once.

    Parameters
    ----------
    where
        What messages call the source.
    column
        The column; None: no event has a time.
    """

    def __init__(self, where: str, column: str | None) -> None:
        self._where, self._column = where, column
        self._said = False

    def read(self, cells: Sequence[Any]) -> NDArray[Any]:
        """Seconds of the epoch (N,), NaN where a cell (text, a number or None) holds none."""
        import numpy as np

        if self._column is None:
            return np.full(len(cells), np.nan)
        times = [_seconds(cell) for cell in cells]
        if None in times and not self._said:
            self._said = True
            logging.getLogger("mapsto").warning(
                "%s: '%s' in column '%s' is no time, such as 2026-12-31 08:00 or seconds of the epoch; such events have none",
                self._where,
                short(str(cells[times.index(None)])),
                short(self._column),
            )
        return np.array([math.nan if seconds is None else seconds for seconds in times], np.float64)


def _seconds(cell: Any) -> float | None:
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        return seconds_of(cell)
    return float(cell) if isinstance(cell, int | float) and abs(cell) < _LATEST else None
