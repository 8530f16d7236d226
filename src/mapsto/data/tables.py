"""Columns of a table as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mapsto.errors import DataError, SpecError, nearest

__all__ = ["encoded", "filled", "read_table", "target_classes", "target_values"]

_WORDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NUMBERS = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_decimal,
    pa.types.is_null,
)
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]


def read_table(path: Path, needed: Sequence[str]) -> dict[str, Any]:
    """The columns of a CSV, TSV or Parquet file by name, each one pyarrow array.

    Raises
    ------
    DataError
        The file is not a whole table of its kind, or two columns have one name.
    SpecError
        A column that is needed is not there.
    """
    try:
        table = _parsed(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"not a whole table: {error}", where=str(path), hint="give a .csv, .tsv or .parquet file"
        ) from error
    names: list[str] = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two columns are named '{twice}'", where=str(path), hint="rename one")
    for name in needed:
        if name not in names:
            raise SpecError(f"there is no column '{name}'", where=str(path), hint=nearest(name, names))
    return {name: table.column(name).combine_chunks() for name in names}


def _parsed(path: Path) -> Any:
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix.lower() in (".parquet", ".pq"):
        return pyarrow.parquet.read_table(path)
    options = pyarrow.csv.ConvertOptions(null_values=_MISSING, strings_can_be_null=True)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    return pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter), convert_options=options
    )


def encoded(
    name: str, column: Any, encode: Literal["one_hot", "ordinal"], *, where: str
) -> tuple[NDArray[Any], list[str]]:
    """A column as float64 of shape (N, k), NaN where a value is missing, and the k columns' names."""
    words = _words(column)
    if words is None:
        return _numbers(name, column, where=where)[:, None], [name]
    known, codes, missing = words
    if encode == "ordinal":
        return np.where(missing, np.nan, codes)[:, None], [name]
    columns = (codes[:, None] == np.arange(len(known))).astype(np.float64)
    columns[missing] = np.nan
    return columns, [f"{name}={word}" for word in known]


def target_classes(name: str, column: Any, *, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A column as labels, and the classes' names: words by alphabet, numbers by size."""
    words = _words(column)
    if words is not None:
        known, codes, missing = words
        _refuse_missing(name, missing, where=where)
        return codes, tuple(known)
    numbers = _numbers(name, column, where=where)
    _refuse_missing(name, np.isnan(numbers), where=where)
    values, labels = np.unique(numbers, return_inverse=True)
    if (values % 1).any():
        raise DataError(
            f"column '{name}' holds fractions, such as {values[values % 1 != 0][0]}, so it is not one of classes",
            where=where,
            hint="set task: values",
        )
    return labels.astype(np.int64), tuple(str(int(value)) for value in values)


def target_values(name: str, column: Any, *, where: str) -> NDArray[np.float32]:
    """A column as numbers to predict, shape (N, 1)."""
    if _words(column) is not None:
        raise DataError(f"column '{name}' holds words, not numbers", where=where, hint="set task: classes")
    numbers = _numbers(name, column, where=where)
    _refuse_missing(name, ~np.isfinite(numbers), where=where)
    return numbers.astype(np.float32)[:, None]


def filled(
    inputs: NDArray[np.float64],
    names: list[str],
    train: NDArray[np.bool_],
    missing: Literal["refuse", "mean"],
    *,
    where: str,
) -> NDArray[np.float32]:
    """Inputs without missing values: refused with row and column, or the mean of the column over the train rows."""
    bad = ~np.isfinite(inputs)
    rows, columns = np.nonzero(bad)
    if not len(rows):
        return inputs.astype(np.float32)
    infinite = np.flatnonzero(~np.isnan(inputs[bad]))
    if missing == "refuse" or len(infinite):
        at = int(infinite[0]) if missing == "mean" else 0
        value = "no value" if np.isnan(inputs[rows[at], columns[at]]) else "infinity"
        count = int(bad.any(axis=1).sum())
        raise DataError(
            f"row {rows[at] + 1}, column '{names[columns[at]].partition('=')[0]}' holds {value} "
            f"({count} of {len(inputs)} rows are like that)",
            where=where,
            hint="fill or drop them" + ("" if len(infinite) else ", or set missing: mean"),
        )
    known = np.where(bad | ~train[:, None], 0.0, inputs)
    counts = (~bad & train[:, None]).sum(axis=0)
    if (counts == 0).any():
        name = names[int(np.flatnonzero(counts == 0)[0])]
        raise DataError(
            f"column '{name}' has no value to take the mean of", where=where, hint="leave it out of features"
        )
    return np.where(bad, known.sum(axis=0) / counts, inputs).astype(np.float32)


def _words(column: Any) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_]] | None:
    """The words of a column by alphabet, each row's number among them, and which rows are missing; None for numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not any(is_kind(column.type) for is_kind in _WORDS):
        return None
    missing = column.is_null().to_numpy(zero_copy_only=False)
    known, codes = np.unique(np.array(column.fill_null("").to_pylist(), dtype=str), return_inverse=True)
    there = np.unique(codes[~missing])
    return known[there].tolist(), np.searchsorted(there, codes).astype(np.int64), missing


def _numbers(name: str, column: Any, *, where: str) -> NDArray[np.float64]:
    if not any(is_kind(column.type) for is_kind in _NUMBERS):
        raise DataError(
            f"column '{name}' is of type {column.type}, neither numbers nor words",
            where=where,
            hint="convert it, or leave it out of features",
        )
    return pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)


def _refuse_missing(name: str, missing: NDArray[np.bool_], *, where: str) -> None:
    if missing.any():
        raise DataError(
            f"row {int(np.flatnonzero(missing)[0]) + 1}, column '{name}' (the target) holds no value "
            f"({int(missing.sum())} of {len(missing)} rows are like that)",
            where=where,
            hint="drop those rows",
        )
