"""Streams of lines of text: in a file, which may be followed as it grows, or on standard input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pydantic import Field

from mapsto.data.streams._roles import TableFile
from mapsto.data.streams._sources import STANDARD_INPUT, FileSource, Source, counted, standard_input
from mapsto.kinds import Block, ColumnType, Json

__all__ = ["LineReader", "TextFile"]

_HEAD_LINES = 101
_QUIET_SECONDS = 1.0
"""How long standard input may pause before what is there is taken for its first rows."""


class LineReader(Protocol):
    """Reads events of a source."""

    @property
    def start(self) -> int:
        """The byte that the first event begins at."""
        ...

    @property
    def types(self) -> Mapping[str, ColumnType | None]:
        """Of the columns to predict from; None where it is not known yet."""
        ...

    def blocks(self, source: Source, at: int, size: int) -> Iterator[Block]:
        """Blocks of at most `size` events from byte `at` on; their positions are bytes."""
        ...


class TextFile(TableFile):
    """Lines of a file, whose position is a byte, or of standard input, whose position is the number of events taken from it."""

    file: str = Field(description="The file: a path, or a path inside the data folder; `-` is standard input.")
    follow: bool = Field(default=False, description="Whether to wait for more at its end, without end.")

    @abstractmethod
    def _reader(self, source: Source) -> LineReader:
        """A reader for a source that stands at its beginning."""

    @property
    def bounded(self) -> bool:
        return not self.follow and self.file != STANDARD_INPUT

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        where = STANDARD_INPUT if self.file == STANDARD_INPUT else str(self._path.absolute())
        return fingerprint_of(self, [where], without=("file",))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        return fingerprint_of(self, [file_digest(self._path)], without=("file",))

    def columns(self) -> Mapping[str, ColumnType]:
        return {name: kind for name, kind in self._lines.types.items() if kind is not None}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        if self.file == STANDARD_INPUT:
            lines, source = self._lines, standard_input()
            yield from counted(source, position, lines.blocks(source, source.tell(), size))
            return
        start = self._lines.start
        with FileSource.opened(self._path, follow=self.follow) as source:
            at = start if position is None else source.require_line_start(position, start)
            yield from self._lines.blocks(source, at, size)

    @cached_property
    def _path(self) -> Path:
        from mapsto.data.io.download import locate

        return locate(self.file, what="the stream")

    @cached_property
    def _lines(self) -> LineReader:
        """What the first lines say."""
        if self.file != STANDARD_INPUT:
            with FileSource.opened(self._path, follow=self.follow) as source:
                return self._reader(source)
        source = standard_input()
        key = self.identity()
        if key not in source.readers:  # its first lines come once, however many streams ask for them
            source.require_fresh()
            source.wait_for(_HEAD_LINES, _QUIET_SECONDS)
            source.readers[key] = self._reader(source)
        return source.readers[key]
