"""A Parquet file as events: what its columns hold, and blocks of its rows from any row on."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.data.streams._cells import TimeCells, label_of, words_of
from mapsto.data.streams._roles import Roles
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Task
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ParquetReader"]

_AT_ONCE = 8192
"""Rows that are decoded together."""
_DAY = 86_400.0


class ParquetReader:
    """The events of a file.

    Parameters
    ----------
    path
        The file.
    roles
        What its columns are for.
    types
        Columns whose type is known from elsewhere. Those that this file has not are missing in all its events.
    """

    def __init__(self, path: Path, roles: Roles, *, types: Mapping[str, ColumnType | None] | None = None) -> None:
        self._path, self._where = path, str(path)
        with self._opened() as file:
            schema = file.schema_arrow
            self._groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        names = [str(name) for name in schema.names]
        roles = roles.of_later(names) if types else roles
        self._roles, self._times = roles, TimeCells(str(path), roles.time)
        kinds: dict[str, ColumnType | None] = {
            name: _type_of(schema.field(place).type) for place, name in enumerate(names)
        }
        chosen = roles.chosen([*names, *(name for name in types or () if name not in names)], self._where)
        for role, name in (("target", roles.target), ("id", roles.id), ("time", roles.time)):
            if name is not None and name in kinds and kinds[name] is None:
                raise SpecError(
                    f"column '{short(name)}', the {role}, holds {schema.field(names.index(name)).type}, "
                    "neither numbers nor words",
                    where=self._where,
                    hint="name another, or write it as numbers or words",
                )
        odd = [name for name in chosen if name in kinds and kinds[name] is None]
        if odd and (roles.features is not None or len(odd) == len(chosen)):
            raise SpecError(
                f"column '{short(odd[0])}' holds {schema.field(names.index(odd[0])).type}, neither numbers nor words",
                where=self._where,
                hint="leave it out of features, or write it as numbers or words",
            )
        if odd:
            logging.getLogger("mapsto").warning(
                "%s: columns of neither numbers nor words are left out: %s", self._where, few(odd, 10)
            )
        wanted = (*(name for name in chosen if name not in odd), *roles.others)
        self._columns = [name for name in wanted if name in kinds]
        known: dict[str, ColumnType | None] = {**kinds, **{name: kind for name, kind in (types or {}).items() if kind}}
        self.types: Mapping[str, ColumnType] = {name: known.get(name) or "number" for name in chosen if name not in odd}

    def blocks(self, position: Json, size: int) -> Iterator[Block]:
        """Blocks of at most `size` events from a row on; their positions are numbers of rows."""
        at, count = 0 if position is None else position, sum(self._groups)
        if not isinstance(at, int) or not 0 <= at <= count:
            raise DataError(
                f"it has {count} rows, and was read up to row {at} before: it is another file",
                where=self._where,
                hint="leave it as it is, or start another store",
            )
        with self._opened() as file:
            if sum(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)) != count:
                raise DataError("was written anew since it was opened", where=self._where, hint="start another store")
            for first, batch in self._batches(file, at):
                yield from self._cut(first, batch, size)

    def _batches(self, file: Any, at: int) -> Iterator[tuple[int, Any]]:
        """Record batches from a row on, each with the number of its first row."""
        import pyarrow as pa

        first = 0
        for group, rows in enumerate(self._groups):
            if first + rows > at:
                row = first
                try:
                    for batch in file.iter_batches(_AT_ONCE, row_groups=[group], columns=self._columns):
                        if row + len(batch) > at:
                            skipped = max(0, at - row)
                            yield row + skipped, batch.slice(skipped)
                        row += len(batch)
                except (pa.ArrowException, OSError) as error:
                    raise _broken(self._where, error) from error
            first += rows

    def _cut(self, first: int, batch: Any, size: int) -> Iterator[Block]:
        """The rows of a batch as blocks of at most `size`."""
        import numpy as np

        roles, count = self._roles, len(batch)
        columns = {name: batch.column(place) for place, name in enumerate(batch.schema.names)}
        broken: dict[int, str] = {}
        x = {name: _column(columns.get(name), kind, count) for name, kind in self.types.items()}
        if roles.target is None:
            has_y = np.zeros(count, np.bool_)
            y = np.full(count, np.nan) if roles.task == "values" else words_of([""] * count)
        else:
            target = columns[roles.target]
            has_y = (_words(target) != "") if _type_of(target.type) == "word" else ~_are_null(target)
            y = _labels(target, has_y, roles.task, broken)
        has_x = np.ones(count, np.bool_)
        ids = words_of([""] * count)
        if roles.id is not None:
            ids = _words(columns[roles.id])
            given = np.zeros(count, np.bool_)
            for name in x:
                if name in columns:
                    given |= ~_are_null(columns[name])
            has_x = given | ~has_y
        times = self._seconds(columns, count)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield Block(
                times=times[part],
                ids=ids[part],
                x={name: values[part] for name, values in x.items()},
                has_x=has_x[part],
                y=y[part],
                has_y=has_y[part],
                next=first + part.stop,
                broken={event - start: why for event, why in broken.items() if start <= event < part.stop}
                if broken
                else {},
            )

    def _seconds(self, columns: Mapping[str, Any], count: int) -> NDArray[Any]:
        import numpy as np

        if self._roles.time is None:
            return np.full(count, np.nan)
        column = columns[self._roles.time]
        return _numbers(column) if _type_of(column.type) == "number" else self._times.read(column.to_pylist())

    @contextmanager
    def _opened(self) -> Generator[Any]:
        import pyarrow as pa
        import pyarrow.parquet

        try:
            file: Any = pyarrow.parquet.ParquetFile(self._path)
        except (pa.ArrowException, OSError) as error:
            raise _broken(self._where, error) from error
        with file:
            yield file


def _broken(where: str, error: Exception) -> DataError:
    return DataError(
        f"not a whole Parquet file ({str(error)[:200]})", where=where, hint="write it again, as with pyarrow or pandas"
    )


def _type_of(kind: Any) -> ColumnType | None:
    """What a column of an Arrow type holds; None for neither numbers nor words."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view)):
        return "word"
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    times = (types.is_timestamp, types.is_date, types.is_time, types.is_duration)
    return "number" if any(test(kind) for test in (*numbers, *times)) else None


def _plain(column: Any) -> Any:
    """A column without its dictionary."""
    from pyarrow import types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _are_null(column: Any) -> NDArray[Any]:
    return _plain(column).is_null().to_numpy(zero_copy_only=False)


def _column(column: Any, kind: ColumnType, count: int) -> NDArray[Any]:
    """Numbers with NaN, or words with the empty one, for a null; all are where there is no such column."""
    import numpy as np

    if column is None:
        return np.full(count, np.nan) if kind == "number" else words_of([""] * count)
    own = _type_of(column.type)
    if kind == "word":
        return _words(column)
    return _numbers(column) if own == "number" else _words(column)


def _numbers(column: Any) -> NDArray[Any]:
    """float64 with NaN for null; times in seconds."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    column = _plain(column)
    kind, factor = column.type, 1.0
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind):
        factor = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        column = column.cast(pa.int32() if types.is_time32(kind) else pa.int64())
    elif types.is_date32(kind):
        column, factor = column.cast(pa.int32()), 1 / _DAY
    elif types.is_date64(kind):
        column, factor = column.cast(pa.int64()), 1e3
    numbers: NDArray[Any] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(numbers if factor == 1.0 else numbers / factor, np.float64)


def _words(column: Any) -> NDArray[Any]:
    """Strings, empty for null; whole numbers without a point, truth values as in JSON."""
    from pyarrow import types

    column = _plain(column)
    if _type_of(column.type) == "word":
        return words_of(["" if word is None else word for word in column.to_pylist()])
    values = _numbers(column).tolist() if types.is_temporal(column.type) else column.to_pylist()
    return words_of(["" if value is None else _word(value) for value in values])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def _labels(column: Any, has_y: NDArray[Any], task: Task, broken: dict[int, str]) -> NDArray[Any]:
    """The classes or numbers of a batch; what is no number is added to `broken`."""
    import numpy as np

    if task == "classes":
        return _words(column)
    if _type_of(column.type) == "number":
        return _numbers(column)
    cells = _words(column).tolist()
    y = np.full(len(cells), np.nan)
    for event in np.flatnonzero(has_y).tolist():
        number = label_of(cells[event], comma=False)
        if number is None:
            broken[event] = "a label that is no number"
        else:
            y[event] = number
    return y
