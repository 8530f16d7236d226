"""Digests of content: of files, remembered as long as a file stays untouched, and of data sets made from them.

A digest says what the data is, never where it lies, so that a recipe's key is the same on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import sqlite3
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from mapsto import discovery
from mapsto.data.io.download import cache_folder
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Dataset, Frozen, Stream, Tasks
from mapsto.kinds.canonical import dumps, source_digest, without_defaults
from mapsto.mapping import Ref
from mapsto_runtime.regular_files import open_file

__all__ = ["dataset_of", "file_digest", "file_digests", "fingerprint_of", "folder_digest"]

# A file written again within its clock's tick keeps its time stamp, so only digests of files older than this are kept.
_SETTLED_NS = 2_000_000_000

_BLOCK = 2000
"""Files whose digests are kept together."""
_Stamp = tuple[str, int, int, int, int]
_TABLE = (
    "CREATE TABLE IF NOT EXISTS file_digests "
    "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, sha256 TEXT)"
)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits; a `DataError` where it cannot be read."""
    return file_digests([path])[0]


def file_digests(paths: Iterable[Path]) -> list[str]:
    """The SHA-256 of each file's content, in order.

    Digests are kept by (path, size, modification time, change time, inode), since some tools set the modification time back. They are kept
    a block of files at a time, so that a kill loses little; a cache that is damaged or cannot be written costs time only.
    """
    left, found = iter(paths), list[str]()
    while block := list(itertools.islice(left, _BLOCK)):
        found += _digests_of_block(block)
    return found


def _digests_of_block(paths: Sequence[Path]) -> list[str]:
    stamps = [_stamp(path) for path in paths]
    known = _remembered(stamps)
    found: dict[_Stamp, str] = {}
    for stamp in stamps:
        if stamp not in known and stamp not in found:
            found[stamp] = _hashed(Path(stamp[0]))
    _remember({s: digest for s, digest in found.items() if _settled(s)})
    known.update(found)
    return [known[stamp] for stamp in stamps]


def folder_digest(paths: Iterable[Path]) -> str:
    """One digest of the contents of several files in the order given; their names do not enter."""
    whole = hashlib.sha256()
    for digest in file_digests(paths):
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()


def fingerprint_of(
    spec: Dataset | Tasks | Stream, content: Sequence[str] = (), *, without: Collection[str] = ()
) -> str:
    """The fingerprint of a data set: its name, version, fields that are not at a plain default, and the digests of its content.

    Parameters
    ----------
    spec
        The data set, tasks or stream; fields that are data sets or streams enter by their own fingerprints.
    content
        Digests of the files it is read from.
    without
        Fields that do not enter because `content` stands for them: paths.
    """
    parts = [discovery.name_of(type(spec)), spec.version, _fields(spec, without), list(content)]
    return hashlib.sha256(dumps(parts).encode()).hexdigest()


def dataset_of(source: Dataset | Ref, *, where: str) -> Dataset:
    """The data set of a nested data field, which the executor has put in place of a reference."""
    if isinstance(source, Ref):
        raise SpecError(
            f"{source!r} stands for data that is not known here",
            where=where,
            hint="use it in a recipe that has an entry of that label, or give the data set itself",
        )
    return source


def _plain(value: Any) -> Any:
    if isinstance(value, Dataset):
        return value.fingerprint()
    if isinstance(value, Stream):
        return value.fingerprint() if value.bounded else value.identity()
    if isinstance(value, Ref):
        return dataset_of(value, where="fingerprint").fingerprint()
    if isinstance(value, Frozen):
        return {"$": discovery.name_of(type(value)), **_version(type(value)), **_fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value


def _version(cls: type[Frozen]) -> dict[str, Any]:
    """The version of a class that has one, as an augmentation has; of another package's also its source."""
    version: int | None = getattr(cls, "version", None)
    tree = {} if version is None else {"version": version}
    return tree if cls.__module__.startswith("mapsto.") else {**tree, "$source": source_digest(cls)}


def _fields(value: Frozen, without: Collection[str] = ()) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(cast("Any", value)) if f.name not in without]
    return without_defaults(type(value), {name: _plain(getattr(value, name)) for name in names})


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="check that it is there and readable") from error
    return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _settled(stamp: _Stamp) -> bool:
    return max(stamp[2], stamp[3]) < time.time_ns() - _SETTLED_NS and _stamp(Path(stamp[0])) == stamp


def _hashed(path: Path) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="check that it is there and readable") from error


def _database() -> sqlite3.Connection:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "digests.sqlite", timeout=10)
    connection.execute(_TABLE)
    return connection


def _remembered(stamps: Sequence[_Stamp]) -> dict[_Stamp, str]:
    known: dict[_Stamp, str] = {}
    try:
        with closing(_database()) as connection:
            for stamp in stamps:
                row = connection.execute(
                    "SELECT sha256 FROM file_digests "
                    "WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?",
                    stamp,
                ).fetchone()
                if row:
                    known[stamp] = row[0]
    except (OSError, sqlite3.Error) as error:
        _give_up(error)
    return known


def _remember(digests: dict[_Stamp, str]) -> None:
    if not digests:
        return
    try:
        with closing(_database()) as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?, ?, ?, ?)",
                [(*s, digest) for s, digest in digests.items()],
            )
    except (OSError, sqlite3.Error) as error:
        _give_up(error)


def _give_up(error: Exception) -> None:
    """Without its cache everything works, only slower; a damaged one is removed to be made again."""
    logging.getLogger("mapsto").info("the cache of file digests cannot be used: %s", error)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        (cache_folder() / "digests.sqlite").unlink(missing_ok=True)
