"""Texts as a stream of bytes: an event is a byte, which is its label, and what it is to be foretold from are the bytes before it.

A position is the number of the file and the byte in it, so that going on costs no reading again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._cells import words_of
from mapsto.data.streams._sources import STANDARD_INPUT, FileSource, Idle, Source, counted, standard_input
from mapsto.data.text.byte_names import BYTE_NAMES
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block, ColumnType, Json, Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Bytes"]

_Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)] | None]


class Bytes(Stream):
    r"""The bytes of `files`, one file after the other. An event has no columns; its class is its byte, as `BYTE_NAMES` writes it.

    Raises `SpecError` where ranges do not fit the files, `DataError` for a file that is shortened, replaced or removed while it is
    followed.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "poem.txt"
    >>> _ = file.write_text("To be,\n")
    >>> block = next(Bytes(files=(str(file),), ranges=((1, None),)).open())
    >>> block.y.tolist(), block.next
    (['o', '<0x20>', 'b', 'e', ',', '<0x0A>'], [0, 7])
    """

    files: tuple[str, ...] = Field(min_length=1)
    """Paths, or paths inside the data folder; `-` alone is standard input."""
    ranges: tuple[_Range, ...] | None = None
    """Of each file the first byte and the one behind the last, which may be left open; by default all of it."""
    follow: bool = False
    """Whether to wait for more at the end of the last file, without end."""

    @staticmethod
    def contract_fields(folder: Path) -> dict[str, Any]:
        """Two files with bytes that are no text, one of them read twice."""
        first, second = folder / "first.txt", folder / "second.bin"
        first.write_bytes(b"To be, or not to be,\nthat is the question.\n" * 3)
        second.write_bytes(bytes(range(256)))
        return {"files": [str(first), str(second), str(first)], "ranges": [[0, None], [5, 250], [7, 60]]}

    contract: ClassVar[dict[str, Any]] = {}

    @property
    def bounded(self) -> bool:
        return not self.follow and not self._is_standard_input

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        where = [STANDARD_INPUT] if self._is_standard_input else [str(path.absolute()) for path in self._paths]
        return fingerprint_of(self, where, without=("files",))

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digests, fingerprint_of

        return fingerprint_of(self, file_digests(self._paths), without=("files",))

    def columns(self) -> Mapping[str, ColumnType]:
        return {}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        if self._is_standard_input:
            source = standard_input()
            yield from counted(source, position, _blocks(source, 0, source.tell(), None, size))
            return
        ranges = self._ranges
        place, at = _place(position, ranges)
        for number in range(place, len(ranges)):
            begin, end = ranges[number]
            with FileSource.opened(self._paths[number], follow=self.follow and number == len(ranges) - 1) as source:
                yield from _blocks(source, number, at if number == place else begin, end, size)

    @property
    def _is_standard_input(self) -> bool:
        return self.files == (STANDARD_INPUT,)

    @cached_property
    def _ranges(self) -> list[tuple[int, int | None]]:
        given = self.ranges if self.ranges is not None else ((0, None),) * len(self.files)
        if len(given) != len(self.files):
            raise SpecError(
                f"has {len(given)} ranges for {len(self.files)} files", where="bytes: ranges", hint="give each file one"
            )
        for begin, end in given:
            if end is not None and end < begin:
                raise SpecError(
                    f"a range ends at byte {end}, before it begins at {begin}",
                    where="bytes: ranges",
                    hint="give the first byte, and the one behind the last",
                )
        for (begin, end), path in zip(given, self._paths, strict=True) if self.ranges is not None else ():
            size = path.stat().st_size if path.is_file() else None  # what cannot be read is told when it is
            last = end if end is not None else begin
            if size is not None and last > size and not (self.follow and path == self._paths[-1]):
                raise SpecError(
                    f"a range goes to byte {last}, and {path.name} holds {size}",
                    where="bytes: ranges",
                    hint="leave its end open (null) to read all of it",
                )
        return [*given]

    @cached_property
    def _paths(self) -> list[Path]:
        from mapsto.data.io.download import locate

        if STANDARD_INPUT in self.files:
            raise SpecError("standard input is read by itself", where="bytes: files", hint="give files, or '-' alone")
        return [locate(file, what="the text") for file in self.files]


def _blocks(source: Source, number: int, at: int, end: int | None, size: int) -> Iterator[Block]:
    """What a source holds from byte `at` up to `end`."""
    source.require_whole(at)
    source.seek(at)
    idle = Idle()
    while end is None or at < end:
        most = size if end is None else min(size, end - at)
        text = b""
        while len(text) < most and (more := source.readline(most - len(text))):
            text += more
        at += len(text)
        if text:
            idle.heard()
            source.done_to(at)
            yield _block(text, [number, at])
        elif not source.growing:
            return
        elif idle.wait():
            source.require_whole(at)
            source.seek(at)
            yield _block(b"", [number, at])


def _block(text: bytes, position: Json) -> Block:
    import numpy as np

    count = len(text)
    there = np.ones(count, np.bool_)
    return Block(
        times=np.full(count, np.nan),
        ids=words_of([""] * count),
        x={},
        has_x=there,
        y=_names()[np.frombuffer(text, np.uint8)],
        has_y=there,
        next=position,
    )


def _names() -> NDArray[Any]:
    return words_of(BYTE_NAMES)


def _place(position: Json, ranges: list[tuple[int, int | None]]) -> tuple[int, int]:
    """The number of the file and the byte in it."""
    if position is None:
        return 0, ranges[0][0]
    if isinstance(position, list) and len(position) == 2:
        number, at = position
        if isinstance(number, int) and isinstance(at, int) and 0 <= number < len(ranges) and at >= ranges[number][0]:
            return number, at
    raise DataError("its position is of other files", where="bytes", hint="start another store")
