"""JSON Lines, an object a line, as a table: its columns are the objects' names, in the order in which they come."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.lines import lines_of
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WrittenNumber", "is_json_lines", "json_objects", "read_json_lines"]


class WrittenNumber(float):
    """A number that knows how it was written: as a text or a name it keeps all its digits.

    >>> WrittenNumber("1.50") + 1, WrittenNumber("12345678901234567").written
    (2.5, '12345678901234567')
    """

    __slots__ = ("written",)
    written: str

    def __new__(cls, written: str) -> WrittenNumber:
        made = super().__new__(cls, written)
        made.written = written
        return made

    def __reduce__(self) -> tuple[type[WrittenNumber], tuple[str]]:
        return WrittenNumber, (self.written,)


def is_json_lines(text: str) -> bool:
    """Whether the first line that is not empty is an object.

    >>> is_json_lines('{"text": "hello"}'), is_json_lines("{a}, {b}"), is_json_lines("text,label")
    (True, False, False)
    """
    line = next((line for line in lines_of(text) if line.strip()), "")
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def json_objects(text: str, name: str) -> list[dict[str, Any]]:
    """The object of each line that is not empty, its fractions as `WrittenNumber`.

    Raises `DataError` that names the first line which is no object.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines_of(text)):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line, parse_float=WrittenNumber)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"line {number + 1} is no JSON ({error})", where=name, hint="give one object a line, whole"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"line {number + 1} is no object", where=name, hint='give one a line, as {"text": "hello"}')
        rows.append(row)
    return rows


def read_json_lines(text: str, name: str) -> tuple[dict[str, NDArray[np.object_]], dict[str, str]]:
    """Column → cells, text, number or None where an object has no such name; and columns of lists or objects → what they hold.

    Raises `DataError` that names the first line which is no object.
    """
    rows = json_objects(text, name)
    columns: dict[str, NDArray[np.object_]] = {}
    odd: dict[str, str] = {}
    for title in dict.fromkeys(title for row in rows for title in row):
        cells = [row.get(title) for row in rows]
        kinds = {type(cell) for cell in cells if cell is not None}
        if kinds & {list, dict}:
            odd[title] = few(sorted(kind.__name__ for kind in kinds))
            cells = [None] * len(rows)
        columns[title.strip()] = _cells(cells, title, name)
    return columns, odd


def _cells(cells: list[Any], title: str, name: str) -> NDArray[np.object_]:
    import numpy as np

    words = any(isinstance(cell, str) for cell in cells)
    found = np.empty(len(cells), object)
    for row, cell in enumerate(cells):
        if isinstance(cell, bool):
            found[row] = str(cell).lower() if words else float(cell)
        elif isinstance(cell, int | float):
            written = cell.written if isinstance(cell, WrittenNumber) else str(cell)
            found[row] = written if words else _number(cell, written, f"row {row + 1}, '{short(title)}'", name)
        else:
            found[row] = cell.strip() if isinstance(cell, str) else cell
    return found


def _number(cell: float, written: str, place: str, name: str) -> float:
    if isinstance(cell, int) and math.isinf(float(written)):
        raise DataError(f"{place} holds a number beyond every other", where=name, hint="mend it")
    return WrittenNumber(written) if math.isfinite(cell) else float(cell)
