"""A Parquet file as a stream: a row is an event, and its position is its number, whose row group is found without reading those before.

A row whose target is null is a question; one with an id and a target alone is a label that comes late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mapsto.data.streams._parquet_reader import ParquetReader
from mapsto.data.streams._roles import TableFile
from mapsto.kinds import Block, ColumnType, Json

__all__ = ["Parquet"]


class Parquet(TableFile):
    """The rows of a file; columns of numbers, truth values and times are numbers, those of text and dictionaries of it are words.

    Nulls are missing values. Times as features are seconds of the epoch. Columns of other types are left out.

    Raises `DataError` for a file that is no whole Parquet file, `SpecError` for a column that it has not.

    >>> import tempfile, pathlib, pyarrow as pa, pyarrow.parquet
    >>> file = str(pathlib.Path(tempfile.mkdtemp()) / "doors.parquet")
    >>> table = pa.table({"width": [0.8, None], "colour": ["red", None], "open": [True, False]})
    >>> pyarrow.parquet.write_table(table, file)
    >>> block = next(Parquet(file=file, target="open").open())
    >>> block.x["width"].tolist(), block.x["colour"].tolist(), block.y.tolist(), block.next
    ([0.8, nan], ['red', ''], ['true', 'false'], 2)
    """

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """Row groups of 16 with questions, late labels, gaps, a dictionary and times."""
        import pyarrow as pa
        import pyarrow.parquet

        file = folder / "doors.parquet"
        rows = [*range(40), *range(0, 20, 2)]
        late = [place >= 40 for place in range(50)]
        width = [None if late[place] or n % 5 == 0 else n / 4 for place, n in enumerate(rows)]
        colour = [None if late[place] else f"red {n % 3}" for place, n in enumerate(rows)]
        table = pa.table(
            {
                "number": rows,
                "width": width,
                "colour": pa.array(colour).dictionary_encode(),
                "open": ["no" if late[place] else "yes" if n % 2 else None for place, n in enumerate(rows)],
                "when": pa.array([10**6 * place for place in range(50)], pa.timestamp("us")),
            }
        )
        pyarrow.parquet.write_table(table, file, row_group_size=16)
        return {"file": str(file), "target": "open", "id": "number", "time": "when"}

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [str(self._path.absolute())], without=("file",))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        return fingerprint_of(self, [file_digest(self._path)], without=("file",))

    def columns(self) -> Mapping[str, ColumnType]:
        return self._rows.types

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        return self._rows.blocks(position, size)

    @cached_property
    def _path(self) -> Path:
        from mapsto.data.io.download import locate

        return locate(self.file, what="the stream")

    @cached_property
    def _rows(self) -> ParquetReader:
        return ParquetReader(self._path, self.roles)
