"""Bytes that are read line by line: of a file, which may grow, and of standard input, which can be read once."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from mapsto.errors import DataError
from mapsto.kinds import Block, Json

__all__ = ["LONGEST", "STANDARD_INPUT", "FileSource", "Idle", "Source", "StandardInput", "counted", "standard_input"]

STANDARD_INPUT = "-"
"""The name of standard input."""
LONGEST = 1 << 20
"""Bytes of a line, with the line breaks in its quoted cells; a quote that is not closed by then is part of its cell."""
_LOOK_SECONDS = 0.1
"""How often a source that waits for more is looked at."""
_IDLE_SECONDS = 1.0
_PART = 1 << 16
_MOST_PARTS = 64
"""Parts of standard input, 4 MiB, that are kept in memory before they are wanted."""


class Source:
    """A place that bytes are read from, in order, and to which reading can return."""

    where: str
    """What messages call it."""

    @property
    @abstractmethod
    def growing(self) -> bool:
        """Whether more may come after what is there."""

    @abstractmethod
    def readline(self, most: int, /) -> bytes:
        """What is there of a line, with its line break, at most so many bytes."""

    @abstractmethod
    def seek(self, at: int, /) -> None:
        """Go to byte `at`."""

    @abstractmethod
    def tell(self) -> int:
        """The byte that is next."""

    def require_whole(self, at: int) -> None:
        """Raises `DataError` where what was read up to byte `at` is no longer there."""

    def done_to(self, at: int) -> None:
        """Nothing before byte `at` will be wanted again."""


class FileSource(Source):
    """A file."""

    def __init__(self, path: Path, *, follow: bool) -> None:
        self.where, self._path, self._follow = str(path), path, follow
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror}", where=str(path), hint="check that it is there and readable"
            ) from error

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, follow: bool = False) -> Generator[FileSource]:
        """The source, closed in the end."""
        source = cls(path, follow=follow)
        with source._file:
            yield source

    @property
    def growing(self) -> bool:
        return self._follow

    def readline(self, most: int, /) -> bytes:
        return self._file.readline(most)

    def seek(self, at: int, /) -> None:
        self._file.seek(at)

    def tell(self) -> int:
        return self._file.tell()

    def require_line_start(self, at: Json, first: int) -> int:
        """A position as a byte. Raises `DataError` where no line begins there, as in a file that another one has replaced.

        `first` is the byte at which the first event begins.
        """
        length = self._file.seek(0, os.SEEK_END)
        fits = isinstance(at, int) and first <= at <= length
        if fits and first < cast("int", at) < length:
            self._file.seek(cast("int", at) - 1)
            fits = self._file.read(1) == b"\n"
        if not fits:
            raise DataError(
                f"no line begins at byte {at} of {length}, where it was read up to before: it is another file, or has become shorter",
                where=self.where,
                hint="append to it only, or start another store",
            )
        return cast("int", at)

    def require_whole(self, at: int) -> None:
        length = self._file.seek(0, os.SEEK_END)
        self._file.seek(at)
        hint = "append to it only, or start another store"
        if length < at:
            raise DataError(
                f"has {length} bytes, and was read up to byte {at} before: it has become shorter",
                where=self.where,
                hint=hint,
            )
        if not self._follow:
            return
        try:
            there = self._path.stat()
        except OSError as error:
            raise DataError("was removed while it was followed", where=self.where, hint=hint) from error
        if not os.path.samestat(there, os.fstat(self._file.fileno())):
            raise DataError("was replaced by another file while it was followed", where=self.where, hint=hint)


class StandardInput(Source):
    """What comes on a file descriptor. It keeps what may be wanted again, a thread reads what is to come.

    Waiting for input is bounded, so that a stream that waits can be stopped.
    """

    where = "standard input"

    def __init__(self, descriptor: int) -> None:
        self._parts: queue.Queue[bytes] = queue.Queue(_MOST_PARTS)
        self._kept, self._start, self._at = bytearray(), 0, 0
        """The bytes that are kept, the place of the first of them, and the byte that is next."""
        self._ended = False
        self.taken = 0
        """Events that were given on in this process."""
        self.readers: dict[str, Any] = {}
        """What each stream of it has learnt from its first lines."""
        threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()

    def _read(self, descriptor: int) -> None:
        try:
            while part := os.read(descriptor, _PART):
                self._parts.put(part)
        except OSError as error:
            logging.getLogger("mapsto").warning("standard input ends: %s", error.strerror)
        self._parts.put(b"")

    @property
    def growing(self) -> bool:
        return not self._ended

    def readline(self, most: int, /) -> bytes:
        start = looked = self._at - self._start
        while True:
            end = self._kept.find(b"\n", looked, start + most) + 1
            looked = len(self._kept)
            if end or looked - start >= most or not self._more():
                break
        line = bytes(self._kept[start : end or start + most])
        self._at += len(line)
        return line

    def _more(self) -> bool:
        """Whether there was more to keep."""
        if self._ended:
            return False
        try:
            part = self._parts.get_nowait()
        except queue.Empty:
            return False
        self._kept += part
        self._ended = not part
        return bool(part)

    def wait_for(self, lines: int, seconds: float) -> None:
        """Wait until so many lines are there, or it ends, or for so long nothing has come after the first."""
        heard = time.monotonic()
        length = len(self._kept)
        while self._kept.count(b"\n") < lines and not self._ended:
            if not self._more():
                time.sleep(_LOOK_SECONDS / 10)
            if len(self._kept) > length:
                heard, length = time.monotonic(), len(self._kept)
            elif length and time.monotonic() - heard > seconds:
                return

    def seek(self, at: int, /) -> None:
        self._at = at

    def tell(self) -> int:
        return self._at

    def require_fresh(self) -> None:
        """Go back to its beginning. Raises `DataError` where events were already taken from it."""
        if self._start:
            raise DataError(
                "events were taken from it by another stream",
                where=self.where,
                hint="let one stream read standard input",
            )
        self._at = 0

    def done_to(self, at: int) -> None:
        del self._kept[: at - self._start]
        self._start = at


@lru_cache
def _standard_input(descriptor: int) -> StandardInput:
    return StandardInput(descriptor)


def standard_input() -> StandardInput:
    """The standard input of this process: the same one whoever asks."""
    try:
        return _standard_input(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError) as error:
        raise DataError("there is no standard input to read", hint="pipe events into the command") from error


def counted(source: StandardInput, position: Json, blocks: Iterator[Block]) -> Iterator[Block]:
    """Blocks of standard input, whose position is how many events were taken from it: ``{"taken": n}``.

    What was taken in another process cannot be read again. A stream that goes on then counts it, and skips nothing of what comes now.
    """
    before = 0
    if position is not None:
        before = position.get("taken", 0) if isinstance(position, dict) else 0
        if not isinstance(before, int) or isinstance(before, bool):
            raise DataError(f"{position} is no position of standard input", hint="start another store")
    if position is not None and before != source.taken:
        logging.getLogger("mapsto").warning(
            "standard input cannot be read again: events that were taken from it before count, and the stream goes on with what comes now"
        )
    base = before - source.taken if position is not None else 0
    for block in blocks:
        source.taken += len(block)
        yield replace(block, next={"taken": base + source.taken})


class Idle:
    """How long nothing has come: a source that waits gives an empty block once a second."""

    def __init__(self) -> None:
        self._heard = time.monotonic()

    def heard(self) -> None:
        """Something has come."""
        self._heard = time.monotonic()

    def wait(self) -> bool:
        """Sleep a moment; whether a second has gone by since something came or this was last so."""
        time.sleep(_LOOK_SECONDS)
        due = time.monotonic() - self._heard >= _IDLE_SECONDS
        if due:
            self.heard()
        return due
