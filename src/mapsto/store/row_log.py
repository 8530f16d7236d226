"""The log of a process: rows of metrics, appended as they come beside its checkpoint, so that a checkpoint grows with nothing.

A line of JSON a row, ``[n, {"train_loss": 0.3}]``. The checkpoint holds the log's length and digest: what was appended after it is cut off
when the process goes on, and is appended again. On an object store, where nothing can be appended, each checkpoint adds one segment.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from mapsto.errors import StoreError
from mapsto.store.files import disk_error

if TYPE_CHECKING:
    from mapsto.store.store import Store

__all__ = ["RowLog", "checkpoint_name", "log_name"]

_SUFFIX = "-log"


def log_name(name: str) -> str:
    """The file of the log beside the checkpoint `name`, in the store's folder ``states``."""
    return f"{name}{_SUFFIX}"


def checkpoint_name(name: str) -> str:
    """The checkpoint that a file of the folder ``states`` belongs to: itself, or that of a log or of a segment of one."""
    return name.partition(_SUFFIX)[0]


class RowLog:
    """The log of the process whose checkpoint is `name`; close it, or use it in a ``with`` statement.

    Parameters
    ----------
    store
        Where it lies.
    name
        The checkpoint's name.
    reached
        What `mark` gave when the checkpoint was taken; None where the process begins, and with it an empty log.

    Raises
    ------
    StoreError
        The log cannot be written.
    LookupError
        It is shorter than it was at the checkpoint or of other bytes, and the checkpoint is therefore of no use.
    """

    def __init__(self, store: Store, name: str, reached: Mapping[str, Any] | None) -> None:
        self._store, self._relative = store, f"states/{log_name(name)}"
        self._path = store.path(self._relative)
        self._segments: list[int] = [] if reached is None else list(reached["segments"])
        self._hash = hashlib.sha256()
        length = 0 if reached is None else int(reached["length"])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if store.remote is not None:
                self._fetch()
            with self._path.open("ab") as file:
                if file.tell() < length:
                    raise LookupError(f"the log has {file.tell()} bytes, at the checkpoint it had {length}")
                file.truncate(length)
            if reached is not None:
                self._require(reached["digest"])
            self._file: IO[bytes] = self._path.open("ab")
        except OSError as error:
            raise disk_error(error, self._path) from error

    def append(self, n: int, metrics: Mapping[str, float]) -> None:
        """Add a row."""
        line = json.dumps([n, dict(metrics)], separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        try:
            self._file.write(line)
        except OSError as error:
            raise disk_error(error, self._path) from error

    def mark(self) -> dict[str, Any]:
        """What a checkpoint that is taken now has to hold: how long the log is, and its digest."""
        try:
            self._file.flush()
            length = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise disk_error(error, self._path) from error
        if self._store.remote is not None and length > sum(self._segments):
            with self._path.open("rb") as file:
                file.seek(sum(self._segments))
                new = file.read()
            self._store.remote.put(f"{self._relative}.{len(self._segments)}", new)
            self._segments.append(len(new))
        return {"length": length, "digest": self._hash.hexdigest(), "segments": list(self._segments)}

    def rows(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Every row, read from the file."""
        if not self._file.closed:
            self._file.flush()
        try:
            with self._path.open("rb") as file:
                for line in file:
                    n, metrics = json.loads(line)
                    yield int(n), metrics
        except (OSError, ValueError, TypeError) as error:
            hint = "delete that file: the step runs again"
            raise StoreError("the log of a process cannot be read", where=str(self._path), hint=hint) from error

    def _require(self, digest: str) -> None:
        with self._path.open("rb") as file:
            while part := file.read(1 << 20):
                self._hash.update(part)
        if self._hash.hexdigest() != digest:
            raise LookupError("the log does not match its digest at the checkpoint")

    def _fetch(self) -> None:
        """Put the segments together in the cache of an object store."""
        remote = self._store.remote
        with self._path.open("wb") as file:
            for number, length in enumerate(self._segments):
                part = remote.get(f"{self._relative}.{number}") if remote is not None else None
                if part is None or len(part) != length:
                    raise LookupError(f"segment {number} of the log is missing or not whole")
                file.write(part)

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; its rows can still be read. Raises `StoreError` where the disk has no room for the last of them."""
        try:
            self._file.close()
        except OSError as error:
            raise disk_error(error, self._path) from error
