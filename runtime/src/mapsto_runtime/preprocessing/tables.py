"""Rows of a table as a network's input: by the columns that its signature holds, or as plain rows of numbers.

Columns are matched by name, in any order; what the network does not predict from (the label, ids, others) is passed over. Without a
header they are matched by position. A missing value, and a word that training did not have, become the column's `Column.fill`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DataError, nearest
from mapsto_runtime.preprocessing.arrays import finite, whole
from mapsto_runtime.preprocessing.raw_tables import MISSING, RawTable, number_of, read_raw
from mapsto_runtime.shown import few, short
from mapsto_runtime.signature import Column, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LARGEST", "Encoded", "encoded", "encoded_column", "plain_rows", "raw_of_array", "reshaped", "values_of"]

LARGEST = 1e100
"""A number beyond it counts as infinite: so would its square."""
_PLAIN = {False: re.compile(r"[0-9.eE+\-\n]*"), True: re.compile(r"[0-9,eE+\-\n]*")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Rows that could be encoded, and what is wrong with the others."""

    rows: NDArray[Any]
    """Shape (M, D), float32; float64 where the network takes that."""
    numbers: NDArray[np.int64]
    """Of each, its row in the table, counted from 0; shape (M,)."""
    errors: dict[int, DataError]
    """Rows that cannot be used → why."""
    notes: tuple[str, ...]
    """What was done that the user should know."""


def encoded(table: RawTable, preprocessing: Preprocessing, name: str) -> Encoded:
    """The rows of a raw table as a network's input.

    Raises `DataError` where a column is missing, which concerns every row; what concerns one row is among its errors.
    """
    import numpy as np

    columns = preprocessing.columns
    notes = list(table.notes)
    places = _places(table, preprocessing, name, notes)
    errors = {row: DataError(f"row {row + 1}: {what}", where=name) for row, what in table.ragged.items()}
    parts: list[NDArray[np.float64]] = []
    gaps: list[str] = []
    unseen: list[str] = []
    for column, place in zip(columns, places, strict=True):
        comma = place in table.decimal_commas or (column.decimal == "," and not table.decimal_points)
        if place in table.unsure:
            comma = column.decimal == ","
        part, wrong, new = encoded_column(column, table.columns[place], comma)
        for row, what in wrong.items():
            hint = (
                "give a number, or leave the cell empty"
                if column.fill or column.missing == "marked"
                else "fill it in, or train with missing: mean"
            )
            errors.setdefault(
                row, DataError(f"row {row + 1}, column '{short(column.name)}' {what}", where=name, hint=hint)
            )
        missing = np.isnan(part).any(axis=1)
        if missing.any() and (column.fill or column.missing == "marked"):
            unseen += [f"'{short(word)}' in '{short(column.name)}'" for word in new]
        if missing.any() and column.fill and column.missing == "filled":
            part = np.where(np.isnan(part), np.array(column.fill), part)
            if missing.sum() > sum(new.values()):
                gaps.append(f"'{short(column.name)}'")
        parts.append((part - column.mean) / column.std)
    if gaps:
        notes.append(f"missing values are filled with the mean of the train rows (column {few(gaps)})")
    if unseen:
        notes.append(f"words that training did not have count as missing: {few(unseen)}")
    good = np.array([row for row in range(len(table)) if row not in errors], np.int64)
    with np.errstate(over="ignore"):
        rows = np.concatenate(parts, axis=1).astype(np.float64 if preprocessing.doubles else np.float32)[good]
    return Encoded(rows=rows, numbers=good, errors=errors, notes=tuple(notes))


def encoded_column(
    column: Column, cells: NDArray[Any], decimal_comma: bool = False
) -> tuple[NDArray[np.float64], dict[int, str], dict[str, int]]:
    """A column before it is filled and scaled.

    Returns
    -------
    tuple
        Shape (N, width), NaN where there is no value; rows that cannot be used → why; words that are no category → how often.
    """
    import numpy as np

    if column.type == "numbers":
        gaps = set(column.categories)
        values, wrong = values_of(cells, decimal_comma)
        problems = {
            row: f"holds '{short(str(cells[row]))}', which is no number" for row in wrong if cells[row] not in gaps
        }
        problems |= {
            int(row): "holds infinity" if np.isinf(values[row]) else f"holds a number beyond {LARGEST:g}"
            for row in np.flatnonzero(np.abs(values) > LARGEST)
        }
        values = np.where(np.abs(values) > LARGEST, np.nan, values)[:, None]
        new: dict[str, int] = {}
    else:
        codes = {word: code for code, word in enumerate(column.categories)}
        numbers = np.full(len(cells), np.nan)
        problems, new = {}, {}
        for row, cell in enumerate(cells):
            word = _word(cell)
            if word in codes:
                numbers[row] = codes[word]
            elif word is None or word in MISSING:
                continue
            elif column.others:
                numbers[row] = len(codes) - 1
            else:
                new[word] = new.get(word, 0) + 1
        values = numbers[:, None]
        if column.encode == "one_hot":
            values = (values == np.arange(len(codes))).astype(np.float64)
            values[np.isnan(numbers)] = np.nan
    if not column.fill and column.missing == "filled":
        for row in np.flatnonzero(np.isnan(values).any(axis=1)).tolist():
            word = _word(cells[row])
            empty = word is None or word in MISSING
            problems.setdefault(
                row, "holds no value" if empty else f"holds '{short(word or '')}', which training did not have"
            )
    return values, problems, new


def values_of(cells: NDArray[Any], decimal_comma: bool = False) -> tuple[NDArray[np.float64], list[int]]:
    """The numbers of a column, shape (N,), NaN where a value is missing; and the rows that hold no number.

    >>> import numpy as np
    >>> values_of(np.array(["1,5", "NA", "x", 2.0], object), decimal_comma=True)
    (array([1.5, nan, nan, 2. ]), [2])
    """
    import numpy as np

    plain = _plain_numbers(cells, decimal_comma)
    if plain is not None:
        return plain, []
    values = np.full(len(cells), np.nan)
    wrong: list[int] = []
    for row, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and cell in MISSING):
            continue
        number = number_of(cell, decimal_comma=decimal_comma) if isinstance(cell, str) else float(cell)
        if number is None:
            wrong.append(row)
        else:
            values[row] = number
    return values, wrong


def _plain_numbers(cells: NDArray[Any], decimal_comma: bool) -> NDArray[np.float64] | None:
    """The numbers of a column of nothing else and empty cells, many at once; None where it has to be looked at cell by cell."""
    import numpy as np

    if not any(isinstance(cell, str) for cell in cells):
        return np.array(cells.tolist(), np.float64)
    try:
        text = "\n".join(cells)
        if _PLAIN[decimal_comma].fullmatch(text) is None:
            return None
        texts = text.replace(",", ".").split("\n") if decimal_comma else cells
        return np.array([float(cell) if cell else math.nan for cell in texts], np.float64)
    except (TypeError, ValueError):
        return None


def _word(cell: Any) -> str | None:
    """A cell as a word: a whole number without its fraction, as a text file would have it."""
    if cell is None or isinstance(cell, str):
        return cell
    number = float(cell)
    if math.isnan(number):
        return None
    return str(int(number)) if number.is_integer() else str(number)


def _places(table: RawTable, preprocessing: Preprocessing, name: str, notes: list[str]) -> list[int]:
    """Where in the table each column stands that the network predicts from."""
    wanted = [column.name for column in preprocessing.columns]
    if table.names is None:
        return _places_by_order(table, preprocessing, name, notes)
    names = _spelt_as_known([title.strip() for title in table.names], preprocessing.header or wanted, notes)
    for title in wanted:
        if names.count(title) > 1:
            raise DataError(f"two columns are named '{short(title)}'", where=name, hint="rename or drop one")
    missing = [title for title in wanted if title not in names]
    if missing:
        extra = [title for title in names if title not in preprocessing.header]
        close = f"; of {short(missing[0])}: {nearest(missing[0], extra, most=5)}" if extra else ""
        raise DataError(
            f"there is no column {few([_quoted(title) for title in missing])}",
            where=name,
            hint=f"give the columns of the training table ({few([_quoted(title) for title in wanted])}){close}",
        )
    extra = [title for title in names if title not in wanted and title not in preprocessing.header]
    if extra:
        notes.append(f"column {few([_quoted(title) for title in extra])} is passed over: training did not have it")
    for title in wanted:
        if title in table.odd:
            raise DataError(
                f"column '{short(title)}' is of type {table.odd[title]}, neither numbers nor words",
                where=name,
                hint="give it as the training table had it",
            )
    return [names.index(title) for title in wanted]


def _spelt_as_known(names: list[str], known: Sequence[str], notes: list[str]) -> list[str]:
    """Titles that differ from a known one only in small and large letters become it, where neither is doubtful."""
    found: list[str] = []
    for title in names:
        alike = [name for name in known if name.casefold() == title.casefold()]
        others = [name for name in names if name.casefold() == title.casefold()]
        sure = title not in known and len(alike) == len(others) == 1
        if sure:
            notes.append(f"column '{short(title)}' is taken for '{short(alike[0])}'")
        found.append(alike[0] if sure else title)
    return found


def _places_by_order(table: RawTable, preprocessing: Preprocessing, name: str, notes: list[str]) -> list[int]:
    wanted = [column.name for column in preprocessing.columns]
    count = len(table.columns)
    if count in (len(wanted), len(preprocessing.header)):
        _require_values(table, preprocessing, name)
    if count == len(wanted):
        notes.append(
            f"it has no header: its columns are taken for {few([_quoted(title) for title in wanted])} in that order"
        )
        return list(range(count))
    if count == len(preprocessing.header):
        notes.append("it has no header: its columns are taken for those of the training table in that order")
        return [preprocessing.header.index(title) for title in wanted]
    raise DataError(
        _of_another_table(table, wanted)
        or f"it has no header, and {count} columns where {len(wanted)} are predicted from",
        where=name,
        hint=f"give a header with the columns of the training table ({few([_quoted(title) for title in wanted])})",
    )


def _of_another_table(table: RawTable, wanted: Sequence[str]) -> str:
    """A sentence on a first line of words, which will be another table's header; empty where it holds a number."""
    first = [cells[0] for cells in table.columns if len(cells)]
    words = [cell for cell in first if isinstance(cell, str) and cell not in MISSING]
    if not words or any(not isinstance(cell, str) or number_of(cell, decimal_comma=True) is not None for cell in first):
        return ""
    known = {title.casefold() for title in wanted}
    there = len({word.casefold() for word in words} & known) or "none"
    line = few([_quoted(word) for word in words])
    return f"its header ({line}) names {there} of the {len(wanted)} columns that are predicted from"


def _require_values(table: RawTable, preprocessing: Preprocessing, name: str) -> None:
    """Refuse a first line that holds no value of any column: it will be a header of other names."""
    columns = preprocessing.columns
    titles = [column.name for column in columns]
    order = titles if len(table.columns) == len(titles) else list(preprocessing.header)
    first = {title: cells[0] for title, cells in zip(order, table.columns, strict=True) if len(cells)}
    given = [(column, first[column.name]) for column in columns if isinstance(first.get(column.name), str)]
    held = [(column, cell) for column, cell in given if cell not in MISSING]
    if not held or any(
        cell in column.categories if column.type == "words" else number_of(cell, decimal_comma=True) is not None
        for column, cell in held
    ):
        return
    line = few([_quoted(cell) for _, cell in held])
    raise DataError(
        f"its first line ({line}) holds neither columns nor values of the training table",
        where=name,
        hint=f"give a header with the columns of the training table ({few([_quoted(title) for title in titles])})",
    )


def _quoted(name: str) -> str:
    return f"'{short(name)}'"


def raw_of_array(samples: NDArray[Any], columns: int, name: str) -> RawTable:
    """Rows of an array, or a single one, as a table without a header.

    Raises `DataError` for what is no table of `columns` columns.
    """
    rows = samples[None] if samples.ndim == 1 else samples
    if rows.ndim != 2 or rows.dtype.kind not in "buifUO":
        raise DataError(
            f"has shape {tuple(samples.shape)} and type {samples.dtype}, but the network takes rows of {columns} columns",
            where=name,
            hint="give one sample a row, before any scaling",
        )
    cells = rows.astype(object)
    table = tuple(cells.T)
    for column in table if rows.dtype.kind in "fO" else ():
        column[[isinstance(cell, float) and math.isnan(cell) for cell in column]] = None
    return RawTable(names=None, columns=table)


def plain_rows(content: bytes, name: str) -> NDArray[np.float64]:
    """The numbers of a table, shape (N, D), for a network that knows no columns; a first line of names is passed over."""
    import numpy as np

    table = read_raw(content, name, known=())
    for row, what in table.ragged.items():
        raise DataError(f"row {row + 1}: {what}", where=name, hint="give one sample a row, numbers only")
    columns: list[NDArray[np.float64]] = []
    for place, cells in enumerate(table.columns):
        values, wrong = values_of(cells, place in table.decimal_commas)
        for row in wrong:
            raise DataError(
                f"row {row + 1}: '{short(str(cells[row]))}' is no number",
                where=name,
                hint="give one sample a row, numbers only",
            )
        columns.append(values)
    if not len(table):
        raise DataError("holds no rows of numbers", where=name, hint="give one sample a row")
    return np.stack(columns, axis=1)


def reshaped(
    samples: NDArray[Any], shape: tuple[int | str, ...], name: str, *, integers: bool = False
) -> NDArray[np.float32] | NDArray[np.int64]:
    """Samples of the signature's shape; a single one, or rows that hold as many numbers, are reshaped. As int64 for `integers`."""
    import numpy as np

    rows = whole(samples, name) if integers else finite(samples, name)
    fixed = tuple(size for size in shape if isinstance(size, int))
    if len(fixed) == len(shape):
        count = int(np.prod(fixed))
        single = rows.shape in (fixed, (count,))
        if single or (rows.ndim > 1 and int(np.prod(rows.shape[1:])) == count):
            return rows.reshape(-1, *fixed)
    elif rows.ndim == len(shape) + 1:
        return rows
    raise DataError(
        f"has shape {tuple(samples.shape)}, but the network takes samples of shape {shape}",
        where=name,
        hint="give one sample a row with the columns of the training data, without the label",
    )
