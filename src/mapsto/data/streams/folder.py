"""A folder as a stream: tables one after the other in the order of their names, or images in a folder for each class.

It may be followed as files come. A position is the name of a file and the place in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

from pydantic import Field

from mapsto.data.streams._cells import words_of
from mapsto.data.streams._csv_reader import CsvReader
from mapsto.data.streams._jsonl_reader import JsonlReader
from mapsto.data.streams._parquet_reader import ParquetReader
from mapsto.data.streams._roles import Roles
from mapsto.data.streams._sources import FileSource, Idle
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Stream, Task

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Folder"]

_LINES = {".csv": CsvReader, ".tsv": CsvReader, ".jsonl": JsonlReader, ".ndjson": JsonlReader}
_TABLES = {*_LINES, ".parquet"}
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_SETTLED_SECONDS = 1.0
"""How long a file that is followed must not have changed before it is taken for whole."""

_Types = dict[str, "ColumnType | None"]


class Folder(Stream):
    r"""The files of a folder in the order of their names, which those that come later must keep to.

    Of tables those directly in it are taken: ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` and ``.ndjson``. The first says what the columns
    hold; a column that a later one has not is missing there, one that it has besides is new. Images are one column ``image``, in order of
    the files' names across classes; one that lies in no folder of a class is a question.

    Hidden files are passed over. While it is followed, a file is read once it has not changed for a second; one that is renamed into the
    folder is read at once if it is older. A file whose name stands before those already read is not read, which is said once.

    Raises `DataError` for a folder without files or a file that cannot be read, `SpecError` for a column that is not there.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for hour in (1, 2):
    ...     _ = (folder / f"hour{hour}.csv").write_text(f"width,open\n{hour}.5,yes\n")
    >>> [(block.x["width"].tolist(), block.next) for block in Folder(folder=str(folder), target="open").open()]
    [([1.5], ['hour1.csv', None]), ([2.5], ['hour2.csv', None])]
    """

    version: ClassVar[int] = 2

    folder: str
    """The folder: a path, or a path inside the data folder."""
    target: str | None = None
    """The column to predict of tables; without it, images are read, each in a folder named by its class."""
    task: Task = "classes"  # type: ignore[override] - a field where the base has a property
    """Whether the target holds classes, or numbers; a label that is no number is then set aside."""
    features: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns to predict from; by default all but the target, the id and the time."""
    id: str | None = None
    """The column that names an event, by which its label may come late."""
    time: str | None = None
    """The column of times: seconds of the epoch, or as in ISO 8601."""
    size: int = Field(default=32, ge=1, le=4096)
    """Height and width of images in pixels, to which all are resized."""
    channels: Literal[1, 3] = 3
    """1 for grey images, 3 for colour."""
    follow: bool = False
    """Whether to wait for more files, without end."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """Three files of three kinds."""
        (folder / "1.csv").write_text("n,a,b,y\n" + "".join(f"{n},{n / 2},w{n % 3},u\n" for n in range(20)))
        (folder / "2.jsonl").write_text("".join(f'{{"n": {n}, "a": {n}, "y": "v"}}\n' for n in range(20, 40)))
        (folder / "3.csv").write_text("y,a,n\n" + "".join(f"u,{n},{n}\n" for n in range(40, 50)) + "v,,41\n")
        return {"folder": str(folder), "target": "y", "id": "n"}

    @property
    def bounded(self) -> bool:
        return not self.follow

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [str(self._path)], without=("folder",))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digests, fingerprint_of

        files = self._files()
        names = [file.name for file in files]
        return fingerprint_of(self, [*names, *file_digests(file.path for file in files)], without=("folder",))

    def columns(self) -> Mapping[str, ColumnType]:
        return {name: kind for name, kind in self._types.items() if kind is not None}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        name, inner = _place(position)
        files = _Files(self._files, self._key(name), follow=self.follow)
        if name is not None and inner is not None:
            path = self._path / name
            if not path.is_file():
                raise DataError(
                    f"'{name}' is gone, and was not read to its end",
                    where=str(self._path),
                    hint="put it back, or start another store",
                )
            yield from self._table(_File(self._key(name), name, path), inner, size, dict(self._types))
        yield from self._images(files, size) if self.target is None else self._tables(files, size)

    # -- tables

    def _tables(self, files: _Files, size: int) -> Iterator[Block]:
        types, idle = dict(self._types), Idle()
        while True:
            file = next(iter(files.take(1)), None)
            if file is not None:
                yield from self._table(file, None, size, types)
                idle.heard()
            elif not self.follow:
                return
            elif idle.wait():
                yield self._empty(types, files.last)

    def _table(self, file: _File, inner: Json, size: int, types: _Types) -> Iterator[Block]:
        """The events of one file, whose last block says that it is done. New columns are added to `types`."""
        with _opened(file.path, self._roles, types) as (found, blocks):
            for name, kind in found.items():
                types[name] = types.get(name) or kind
            held: Block | None = None
            for block in blocks(inner, size):
                if held is not None:
                    yield replace(held, next=[file.name, held.next])
                held = block
            if held is not None:
                yield replace(held, next=[file.name, None])

    def _empty(self, types: _Types, last: str | None) -> Block:
        import numpy as np

        words = {name: words_of([]) if kind != "number" else np.zeros(0) for name, kind in types.items()}
        none = np.zeros(0, np.bool_)
        y = np.zeros(0) if self.task == "values" else words_of([])
        next_ = None if last is None else [last, None]
        return Block(
            times=np.zeros(0), ids=words_of([]), x=words, has_x=none, y=y, has_y=none, next=cast("Json", next_)
        )

    @property
    def _roles(self) -> Roles:
        return Roles(cast("str", self.target), self.task, self.features, self.id, self.time)

    @cached_property
    def _types(self) -> _Types:
        """What the first table says."""
        first = self._files()[:1] if self.target is not None else []
        if self.follow and first and not _is_whole(first[0].path):
            first = []
        for file in first:
            with _opened(file.path, self._roles, {}) as (types, _):
                return dict(types)
        return {}

    # -- images

    def _images(self, files: _Files, size: int) -> Iterator[Block]:
        idle = Idle()
        while True:
            taken = files.take(size)
            if taken:
                yield self._pictures(taken)
                idle.heard()
            elif not self.follow:
                return
            elif idle.wait():
                yield self._empty({}, files.last)

    def _pictures(self, files: list[_File]) -> Block:
        import numpy as np

        from mapsto_runtime.preprocessing.image_files import huge_allowed, read_picture

        pixels = np.zeros((len(files), self.channels, self.size, self.size), np.uint8)
        broken: dict[int, str] = {}
        with huge_allowed():
            for event, file in enumerate(files):
                try:
                    read = read_picture(file.path, file.name, size=(self.size, self.size), channels=self.channels)
                    pixels[event] = read.pixels
                except DataError as error:
                    broken[event] = error.what
        labels = [file.name.rpartition("/")[0] for file in files]
        return Block(
            times=np.full(len(files), np.nan),
            ids=words_of([file.name for file in files]),
            x={"image": pixels},
            has_x=np.ones(len(files), np.bool_),
            y=words_of(labels),
            has_y=np.array([label != "" for label in labels], np.bool_),
            next=[files[-1].name, None],
            broken=broken,
        )

    # -- files

    @cached_property
    def _path(self) -> Path:
        from mapsto.data.io.download import locate

        path = locate(self.folder, what="the stream")
        if not path.is_dir():
            raise DataError("is no folder", where=str(path), hint="give the folder that the files lie in")
        if self.target is None and (self.features or self.id or self.time or self.task == "values"):
            raise SpecError("features, id, time and task are of tables", where="folder", hint="set target")
        return path

    def _files(self) -> list[_File]:
        """The files in their order. Raises `DataError` where there is none and none will come."""
        if self.target is not None:
            paths = [path for path in self._path.iterdir() if path.suffix.lower() in _TABLES]
        else:
            paths = [path for each in ("*", "*/*") for path in self._path.glob(each) if path.suffix.lower() in _IMAGES]
        names = [(path.relative_to(self._path).as_posix(), path) for path in paths]
        found = sorted(
            _File(self._key(name), name, path)
            for name, path in names
            if not any(part.startswith(".") for part in name.split("/")) and path.is_file()
        )
        if not found and not self.follow:
            kinds = sorted(_TABLES if self.target is not None else _IMAGES)
            raise DataError("holds no files to read", where=str(self._path), hint=f"it may hold {', '.join(kinds)}")
        return found

    @staticmethod
    def _key(name: str | None) -> tuple[str, str]:
        """What files are sorted by: their own name, then that of their folder."""
        parent, _, own = (name or "").rpartition("/")
        return own, parent


class _File(NamedTuple):
    """A file that is there."""

    key: tuple[str, str]
    name: str
    """Its path in the folder, with slashes."""
    path: Path


class _Files:
    """The files after a place, as they come."""

    def __init__(self, listed: Callable[[], list[_File]], after: tuple[str, str], *, follow: bool) -> None:
        self._listed, self._after, self._follow = listed, after, follow
        self._waiting: Iterator[_File] = iter(())
        self._behind: int | None = None
        """How many files stand before the place, all of which were read."""
        self.last: str | None = None if after == ("", "") else "/".join(part for part in reversed(after) if part)
        self._looked = False

    def take(self, most: int) -> list[_File]:
        """Up to so many files that are whole; none where all were read, or those that come first are still being written."""
        taken = list(islice(self._waiting, most))
        if not taken and (self._follow or not self._looked):
            self._looked = True
            self._waiting = self._whole()
            taken = list(islice(self._waiting, most))
        if taken:
            self._after, self.last = taken[-1].key, taken[-1].name
            self._behind = (self._behind or 0) + len(taken)
        return taken

    def _whole(self) -> Iterator[_File]:
        files = self._listed()
        behind = sum(file.key <= self._after for file in files)
        if self._behind is not None and behind > self._behind:
            logging.getLogger("mapsto").warning(
                "%s came after files of later names were read, and is not read; name files in the order in which they come",
                f"{behind - self._behind} files" if behind > self._behind + 1 else "a file",
            )
        self._behind = behind
        for file in files[behind:]:
            if self._follow and not _is_whole(file.path):
                return
            yield file


def _place(position: Json) -> tuple[str | None, Json]:
    """The file's name and the place in it."""
    if position is None:
        return None, None
    if isinstance(position, list) and len(position) == 2 and isinstance(position[0], str):
        return position[0], position[1]
    raise DataError(f"{position} is no position in a folder", hint="start another store")


def _is_whole(path: Path) -> bool:
    """Whether a file is no longer being written, as far as can be told."""
    try:
        if time.time() - path.stat().st_mtime < _SETTLED_SECONDS:
            return False
        if path.suffix.lower() != ".parquet":
            return True
        with path.open("rb") as file:  # what is written last
            file.seek(max(0, path.stat().st_size - 4))
            return file.read() == b"PAR1"
    except OSError:
        return False


@contextmanager
def _opened(
    path: Path, roles: Roles, types: Mapping[str, ColumnType | None]
) -> Generator[tuple[Mapping[str, ColumnType | None], Callable[[Json, int], Iterator[Block]]]]:
    """The columns of a table and a function that reads it from a position in blocks of a size."""
    if path.suffix.lower() == ".parquet":
        rows = ParquetReader(path, roles, types=types)
        yield rows.types, rows.blocks
        return
    with FileSource.opened(path) as source:
        lines = _LINES[path.suffix.lower()](source, roles, types=types)

        def blocks(position: Json, size: int) -> Iterator[Block]:
            at = lines.start if position is None else source.require_line_start(position, lines.start)
            return lines.blocks(source, at, size)

        yield lines.types, blocks
