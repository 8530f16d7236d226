"""Rows of tables as a network's input."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DataError
from mapsto_runtime.preprocessing.arrays import finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["parquet_of", "rows_of", "table_of"]


def table_of(content: bytes, name: str) -> NDArray[np.float64]:
    """The numbers of a text table, shape (N, D), with or without a header."""
    import numpy as np

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not a text file in UTF-8", where=name, hint="give a CSV table or an .npy array") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=separator) if any(cell.strip() for cell in line)]
    if lines and not all(_is_number(cell) for cell in lines[0]):
        lines = lines[1:]
    for number, line in enumerate(lines, start=1):
        wrong = [cell for cell in line if not _is_number(cell)]
        if wrong or len(line) != len(lines[0]):
            what = (
                f"'{wrong[0]}' is no number" if wrong else f"{len(line)} cells where the first row has {len(lines[0])}"
            )
            raise DataError(f"row {number}: {what}", where=name, hint="give one sample a row, numbers only")
    if not lines:
        raise DataError("holds no rows of numbers", where=name, hint="give one sample a row")
    return np.array(lines, dtype=np.float64)


def parquet_of(content: bytes, name: str) -> NDArray[np.float64]:
    """The numbers of a Parquet table, shape (N, D)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        return np.stack([column.cast(pa.float64()).to_numpy() for column in table.columns], 1)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"not a Parquet table of numbers ({error})", where=name, hint="give one sample a row, numbers only"
        ) from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def rows_of(samples: NDArray[Any], shape: tuple[int | str, ...], name: str) -> NDArray[np.float32]:
    """Samples of the signature's shape; a single one, or rows that hold as many numbers, are reshaped."""
    import numpy as np

    rows = finite(samples, name)
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
