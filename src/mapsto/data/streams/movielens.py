"""MovieLens' ratings in the order in which they were given, from the files as they are published: who rated which film, when, and how.

``u.data`` of ml-100k (user, item, rating and time between tabs), ``ratings.dat`` of ml-1m and ml-10m (the same between ``::``) and
``ratings.csv`` of the others (with a header). GroupLens publishes them for research, not to be handed on (Harper and Konstan, "The
MovieLens Datasets: History and Context", 2015), so they are not downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mapsto.data.streams._indexed import Indexed
from mapsto.errors import DataError
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Movielens"]

_NAMES = ("user", "item", "rating", "time")
_HOME = "https://grouplens.org/datasets/movielens/"
_EXPECTED = "four columns: user, item, rating and seconds of the epoch"


class Movielens(Indexed):
    r"""Events in order of their times, of which two that are equal stay as they stand in the file. Users and items are words.

    Raises `DataError` for a file that is not there, saying what to put where, or with a line that is no rating.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "u.data"
    >>> _ = file.write_text("196\t242\t3\t881250949\n186\t302\t4\t881250940\n")
    >>> block = next(Movielens(file=str(file)).open())
    >>> block.x["user"].tolist(), block.x["item"].tolist(), block.y.tolist()
    (['186', '196'], ['302', '242'], [4.0, 3.0])
    """

    file: str = "ml-100k/u.data"
    """The file: a path, or a path inside the data folder."""
    target: Literal["rating", "item"] = "rating"
    """What is learnt: the rating, or which item a user rates next, as a stream of clicks."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """A small file with times out of order, and two that are alike."""
        file = folder / "u.data"
        lines = [f"{n % 7}\t{n % 11}\t{1 + n % 5}\t{880_000_000 + (n * 37) % 50}" for n in range(60)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"file": str(file)}

    @property
    def task(self) -> Literal["classes", "values"]:
        return "values" if self.target == "rating" else "classes"

    def columns(self) -> Mapping[str, ColumnType]:
        return dict.fromkeys(("user", "item") if self.target == "rating" else ("user",), "word")

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [str(self._path.absolute())], without=("file",))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        return fingerprint_of(self, [file_digest(self._path)], without=("file",))

    def size(self) -> int:
        return len(self._ratings.ratings)

    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        import numpy as np

        held, part = self._ratings, slice(start, stop)
        users, items = (
            np.array([str(each) for each in ids[part].tolist()], object) for ids in (held.users, held.items)
        )
        return (
            ({"user": users, "item": items}, held.ratings[part])
            if self.target == "rating"
            else ({"user": users}, items)
        )

    def times(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        return self._ratings.times[numbers]

    @cached_property
    def _path(self) -> Path:
        from mapsto.data.io.download import data_folder, locate

        try:
            return locate(self.file, what="MovieLens")
        except DataError as error:
            raise DataError(
                error.what,
                where="streams.movielens",
                hint=f"download ml-100k.zip from {_HOME} by hand and unpack it in {data_folder()}, so that there is "
                f"{data_folder() / 'ml-100k' / 'u.data'}; or name the file of yours with `file`",
            ) from error

    @cached_property
    def _ratings(self) -> _Ratings:
        """All of the file."""
        import numpy as np
        import pyarrow
        from pyarrow import csv

        data = self._path.read_bytes()
        first = data.partition(b"\n")[0]
        separator = next((each for each in (b"\t", b"::", b",") if each in first), None)
        has_header = first.lower().startswith((b"userid", b"user"))
        if separator is None:
            raise DataError("its first line is no rating", where=str(self._path), hint=_EXPECTED)
        if separator == b"::":
            data = data.replace(b"::", b"\t")
        kinds = (pyarrow.int64(), pyarrow.int64(), pyarrow.float64(), pyarrow.float64())
        try:
            table = csv.read_csv(
                pyarrow.BufferReader(data),
                read_options=csv.ReadOptions(column_names=_NAMES, skip_rows=int(has_header)),
                parse_options=csv.ParseOptions(delimiter="," if separator == b"," else "\t"),
                convert_options=csv.ConvertOptions(column_types=dict(zip(_NAMES, kinds, strict=True))),
            )
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"a line of it is no rating: {error}", where=str(self._path), hint=_EXPECTED) from error
        columns = [table.column(name) for name in _NAMES]
        if any(column.null_count for column in columns):
            raise DataError("a line of it lacks a value", where=str(self._path), hint=_EXPECTED)
        users, items, ratings, times = (column.to_numpy() for column in columns)
        order = np.argsort(times, kind="stable")
        return _Ratings(users[order], items[order], ratings[order], times[order])


class _Ratings(NamedTuple):
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float64]
    times: NDArray[np.float64]
    """Rising."""
