"""JSON Lines, an object a line, as a table: its columns are the objects' names, in the order in which they come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DataError
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["is_json_lines", "read_json_lines"]


def is_json_lines(text: str) -> bool:
    """Whether the first line that is not empty is an object.

    >>> is_json_lines('{"text": "hello"}'), is_json_lines("{a}, {b}"), is_json_lines("text,label")
    (True, False, False)
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_json_lines(text: str, name: str) -> tuple[dict[str, NDArray[np.object_]], dict[str, str]]:
    """Column → cells, text, float or None where an object has no such name; and columns of lists or objects → what they hold.

    Raises `DataError` that names the first line which is no object.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"line {number + 1} is no JSON ({error})", where=name, hint="give one object a line, whole"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"line {number + 1} is no object", where=name, hint='give one a line, as {"text": "hello"}')
        rows.append(row)
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
            found[row] = _number(cell, f"row {row + 1}, '{short(title)}'", name) if not words else str(cell)
        else:
            found[row] = cell.strip() if isinstance(cell, str) else cell
    return found


def _number(cell: float, place: str, name: str) -> float:
    try:
        return float(cell)
    except OverflowError as error:
        raise DataError(f"{place} holds a number beyond every other", where=name, hint="mend it") from error
