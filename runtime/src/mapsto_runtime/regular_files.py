"""Reading a user's files: regular ones only, since a pipe may wait for ever and a device may never end."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Final

from mapsto_runtime.errors import DataError

__all__ = ["open_file", "read_file", "require_file"]

_KINDS: Final = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_file(path: Path, *, hint: str | None = None) -> bytes:
    """The content of a regular file.

    Raises
    ------
    DataError
        It is a pipe, a device or a socket, or larger than this machine's memory; `hint` says what to give instead.
    OSError
        It cannot be opened or read, or is a folder (`IsADirectoryError`).
    """
    with open_file(path, hint=hint) as file:
        size, memory = os.fstat(file.fileno()).st_size, _memory()
        if size > memory:
            raise DataError(
                f"has {size / 1e9:.3g} GB, more than the {memory / 1e9:.3g} GB of memory here",
                where=str(path),
                hint="give a smaller file, or parts of it",
            )
        return file.read()


def open_file(path: Path, *, hint: str | None = None) -> BufferedReader:
    """A regular file, opened for reading; as `read_file` raises. Nothing waits: a pipe without a writer is refused at once."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        try:
            _require(os.fstat(handle), path, hint)
        except BaseException:
            os.close(handle)
            raise
        return handle

    try:
        return open(path, "rb", opener=opener)
    except OSError:
        require_file(path, hint=hint)  # a socket cannot be opened at all
        raise


def require_file(path: Path, *, hint: str | None = None) -> None:
    """Raises `DataError` for a pipe, a device or a socket, before a library opens it by name; `OSError` where it cannot be looked at."""
    _require(path.stat(), path, hint)


def _require(status: os.stat_result, path: Path, hint: str | None) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise DataError(f"is {kind}, not a file", where=str(path), hint=hint or "give a file, or write it into one")


def _memory() -> float:
    """Bytes of this machine's memory; without end where it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")
