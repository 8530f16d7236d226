"""What a table's columns are, learnt from its train rows; how they become numbers is in `mapsto_runtime.preprocessing.tables`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Column, Preprocessing
from mapsto_runtime.preprocessing.raw_tables import MISSING, RawTable, read_raw
from mapsto_runtime.preprocessing.tables import encoded, encoded_column, values_of

__all__ = [
    "Learnt",
    "dates_of",
    "encoded_rows",
    "ids_of",
    "learnt_columns",
    "read_table",
    "target_classes",
    "target_values",
]

_CODE = re.compile(r"[+-]?0\d+")
"""``007``: a number that begins with a zero is a code, whose zeros count."""
_DATE = re.compile(r"(\d{4}-\d\d?-\d\d?|\d{4}/\d\d?/\d\d?|\d\d?[./-]\d\d?[./-](\d{4}|\d\d))([T ]\d\d?:\d\d.*)?")
_TWO_LETTERS = re.compile(r"[A-Z]{2}")
_ID_NAME = re.compile(r"(.*[_\s.-])?(id|ids|uuid|guid|index|idx|key|nr|no|row)|unnamed.*|", re.I)
_FEWEST_ROWS: Final = 10
"""In fewer rows every number may differ from the others by chance."""
_FEW_ODD: Final = 3
_MANY_NUMBERS: Final = 20
"""Among so many different numbers a few odd words are gaps or slips, not categories."""
_MOSTLY: Final = 0.9
"""The share of numbers from which a column of words looks like one of numbers with a slip."""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """The columns of a table, and what was found about them."""

    columns: tuple[Column, ...]
    warnings: tuple[str, ...]
    """What may spoil a result, with its remedy."""
    notes: tuple[str, ...]
    """How columns were understood where that is not plain."""


def read_table(path: Path, needed: Sequence[str]) -> RawTable:
    """The cells of a CSV, TSV or Parquet file with a header.

    Raises
    ------
    DataError
        The file is not a whole table of its kind, or two columns have one name.
    SpecError
        A column that is needed is not there.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"not a whole table: {error}", where=where, hint="give a .csv, .tsv or .parquet file"
        ) from error
    if not content.strip():
        raise DataError("not a whole table: it is empty", where=where, hint="give a .csv, .tsv or .parquet file")
    table = read_raw(content, where)
    for row, what in table.ragged.items():
        count = f" ({len(table.ragged)} rows are like that)" if len(table.ragged) > 1 else ""
        raise DataError(f"not a whole table: row {row + 1} has {what}{count}", where=where, hint="mend or drop the row")
    names = [name.strip() for name in table.names or ()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two columns are named '{twice}'", where=where, hint="rename one")
    for name in needed:
        if name not in names:
            raise SpecError(f"there is no column '{name}'", where=where, hint=nearest(name, names))
    return dataclasses.replace(table, names=tuple(names))


def learnt_columns(
    table: RawTable,
    names: Sequence[str],
    train: NDArray[np.bool_],
    *,
    encode: Literal["one_hot", "ordinal"] = "one_hot",
    scale: bool = True,
    missing: Literal["refuse", "mean"] = "mean",
    where: str,
) -> Learnt:
    """What the columns of these names become, by the train rows alone (shape (N,)).

    Raises `DataError` for a column that is neither of numbers nor of words, or holds no value at all.
    """
    columns: list[Column] = []
    warnings: list[str] = []
    notes: list[str] = []
    for name in names:
        cells, comma = cells_of(table, name, where=where)
        column = _typed(name, cells, train, comma, encode, where=where, warnings=warnings, notes=notes)
        columns.append(_measured(column, cells[train], comma, scale=scale, fill=missing == "mean", where=where))
    return Learnt(columns=tuple(columns), warnings=tuple(warnings), notes=tuple(notes))


def encoded_rows(
    table: RawTable, preprocessing: Preprocessing, *, where: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Every row as a network's input, shape (N, D), and what was done; `preprocessing` holds the columns.

    Raises `DataError` that names the first row that cannot be used, and counts them.
    """
    found = encoded(table, preprocessing, where)
    for row in sorted(found.errors):
        error = found.errors[row]
        count = f" ({len(found.errors)} of {len(table)} rows are like that)"
        raise DataError(error.what + count, where=where, hint=error.hint)
    return found.rows, found.notes


def ids_of(table: RawTable, names: Sequence[str]) -> dict[str, str]:
    """Columns that only tell the rows apart → how: numbers that count them or are called so, or words that are all different."""
    found: dict[str, str] = {}
    for name in names:
        place = (table.names or ()).index(name)
        said = _is_id(name, table.columns[place], place in table.decimal_commas)
        if said is not None:
            found[name] = said
    return found


def dates_of(table: RawTable, names: Sequence[str]) -> list[str]:
    """Columns that hold nothing but dates or times."""
    return [name for name in names if _is_of_dates(table, name)]


def target_classes(name: str, table: RawTable, *, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A column as labels, and the classes' names: words by alphabet, numbers by size."""
    cells, comma = cells_of(table, name, where=where)
    words = _words_of(cells)
    _refuse_missing(name, np.array([word is None for word in words]), where=where)
    if _is_of_words(cells, comma):
        known, codes = np.unique(np.array(words, dtype=str), return_inverse=True)
        return codes.astype(np.int64), tuple(known.tolist())
    numbers, _ = values_of(cells, comma)
    _refuse_missing(name, ~np.isfinite(numbers), where=where)
    values, labels = np.unique(numbers, return_inverse=True)
    if (values % 1).any():
        raise DataError(
            f"column '{name}' holds fractions, such as {values[values % 1 != 0][0]}, so it is not one of classes",
            where=where,
            hint="set task: values",
        )
    return labels.astype(np.int64), tuple(str(int(value)) for value in values)


def target_values(name: str, table: RawTable, *, where: str) -> NDArray[np.float32]:
    """A column as numbers to predict, shape (N,)."""
    cells, comma = cells_of(table, name, where=where)
    numbers, wrong = values_of(cells, comma)
    if wrong:
        raise DataError(f"column '{name}' holds words, not numbers", where=where, hint="set task: classes")
    _refuse_missing(name, ~np.isfinite(numbers), where=where)
    return numbers.astype(np.float32)


def cells_of(table: RawTable, name: str, *, where: str) -> tuple[NDArray[Any], bool]:
    """The cells of a column, and whether its numbers have decimal commas.

    Raises `DataError` where they are neither numbers nor words.
    """
    place = (table.names or ()).index(name)
    cells = table.columns[place]
    kind = "date" if _is_of_dates(table, name) else table.odd.get(name)
    if kind is not None:
        raise DataError(
            f"column '{name}' is of type {kind}, neither numbers nor words",
            where=where,
            hint="convert it, or leave it out of features",
        )
    return cells, place in table.decimal_commas


def _typed(
    name: str,
    cells: NDArray[Any],
    train: NDArray[np.bool_],
    comma: bool,
    encode: Literal["one_hot", "ordinal"],
    *,
    where: str,
    warnings: list[str],
    notes: list[str],
) -> Column:
    decimal: Literal[".", ","] = "," if comma else "."
    if not _is_of_words(cells, comma):
        return Column(name=name, decimal=decimal)
    words = _words_of(cells)
    if "NA" in words:
        notes.append(
            f"column '{name}': NA is taken for a code, as every word there is of two letters, not for a missing value"
        )
    codes = [word for word in words if word is not None and _CODE.fullmatch(word)]
    values, wrong = values_of(cells, comma)
    present = sum(word is not None for word in words)
    if not wrong and codes:
        notes.append(f"column '{name}' holds codes such as '{codes[0]}', so it is one of words")
    elif wrong and len(wrong) <= (1 - _MOSTLY) * present:
        odd = sorted({str(cells[row]) for row in wrong})
        if not codes and len(odd) <= _FEW_ODD and len(set(values[np.isfinite(values)])) >= _MANY_NUMBERS:
            said = " and ".join(f"'{word}'" for word in odd)
            warnings.append(
                f"column '{name}' is taken for one of numbers, so that {said} counts as a missing value "
                f"({len(wrong)} of {present} values, row {wrong[0] + 1} the first); mend them if that is not what they mean"
            )
            return Column(name=name, categories=tuple(odd), decimal=decimal)
        warnings.append(
            f"column '{name}' is taken for one of words, for row {wrong[0] + 1} holds '{cells[wrong[0]]}' "
            f"({len(wrong)} of {present} values are no numbers); if it is one of numbers, mend them or leave those cells empty"
        )
    known = sorted({word for word, is_train in zip(words, train, strict=True) if is_train and word is not None})
    if not known:
        raise DataError(f"column '{name}' has no value to learn from", where=where, hint="leave it out of features")
    return Column(name=name, type="words", categories=tuple(known), encode=encode)


def _measured(column: Column, cells: NDArray[Any], comma: bool, *, scale: bool, fill: bool, where: str) -> Column:
    """The column with what missing values become, its mean and its spread over these rows."""
    values, _, _ = encoded_column(dataclasses.replace(column, fill=(0.0,)), cells, comma)
    known = ~np.isnan(values)
    if not known.any(axis=0).all():
        raise DataError(
            f"column '{column.name}' has no value to take the mean of", where=where, hint="leave it out of features"
        )
    means = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    column = dataclasses.replace(column, fill=tuple(means.tolist()) if fill else ())
    if not scale or column.width != 1 or (column.type == "words" and column.encode == "one_hot"):
        return column
    spread = float(np.where(known, values, means).std())
    mean = float(means[0])
    constant = spread <= 1e-9 * abs(mean)
    return dataclasses.replace(column, mean=mean, std=1.0 if constant else spread)


def _is_there(cell: Any) -> bool:
    return cell is not None and not (isinstance(cell, str) and cell in MISSING)


def _is_of_words(cells: NDArray[Any], comma: bool) -> bool:
    """Whether a column is one of words: a value is no number, or is a code such as ``007``."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell not in MISSING]
    if any(_CODE.fullmatch(cell) for cell in texts):
        return True
    values, wrong = values_of(cells, comma)
    if wrong:
        return True
    truths = sum(cell.lower() in ("true", "false") for cell in texts)
    return 0 < truths < int((~np.isnan(values)).sum())


def _words_of(cells: NDArray[Any]) -> list[str | None]:
    """Each cell as a word, None where it holds none; among codes of two letters, as of countries, NA is one."""
    there = {cell for cell in cells if _is_there(cell)}
    codes = len(there) > 1 and all(isinstance(cell, str) and _TWO_LETTERS.fullmatch(cell) for cell in there)
    return [str(cell) if _is_there(cell) or (codes and cell == "NA") else None for cell in cells]


def _is_of_dates(table: RawTable, name: str) -> bool:
    kind = table.odd.get(name, "")
    present = [cell for cell in table.columns[(table.names or ()).index(name)] if _is_there(cell)]
    return kind.startswith(("date", "time")) or (
        bool(present) and all(isinstance(cell, str) and _DATE.fullmatch(cell) for cell in present)
    )


def _is_id(name: str, cells: NDArray[Any], comma: bool) -> str | None:
    """How a column tells the rows apart; None where it does more, or that cannot be said."""
    if len(cells) < _FEWEST_ROWS or not all(_is_there(cell) for cell in cells) or len(set(cells)) < len(cells):
        return None
    values, wrong = values_of(cells, comma)
    if len(wrong) > len(cells) / 2:
        return "holds another word in every row"
    if wrong:
        return None
    whole = bool(np.isfinite(values).all()) and bool((values % 1 == 0).all())
    named = _ID_NAME.fullmatch(name) is not None or name.endswith(("Id", "ID"))
    return "numbers the rows" if whole and (named or bool((np.diff(values) == 1).all())) else None


def _refuse_missing(name: str, missing: NDArray[np.bool_], *, where: str) -> None:
    if missing.any():
        raise DataError(
            f"row {int(np.flatnonzero(missing)[0]) + 1}, column '{name}' (the target) holds no value "
            f"({int(missing.sum())} of {len(missing)} rows are like that)",
            where=where,
            hint="drop those rows",
        )
