"""Lines of JSON objects as events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mapsto.data.streams._json_events import HEAD, JsonEvents, object_in
from mapsto.data.streams._roles import Roles
from mapsto.data.streams._sources import LONGEST, Idle, Source
from mapsto.kinds import Block, ColumnType

__all__ = ["JsonlReader"]


class JsonlReader:
    """The events of a source.

    Parameters
    ----------
    source
        It stands at its beginning, and does so again.
    roles
        What the keys are for.
    types
        Keys whose type is known from elsewhere.
    """

    def __init__(self, source: Source, roles: Roles, *, types: Mapping[str, ColumnType | None] | None = None) -> None:
        self.start = source.tell()
        lines, _ = _lines(source, self.start, HEAD)
        source.seek(self.start)
        self._events = JsonEvents(
            [_object(line) for line in lines],
            roles,
            source.where,
            growing=source.growing,
            named=roles.id is not None,
            types=types,
        )
        self.types = self._events.types

    def blocks(self, source: Source, at: int, size: int) -> Iterator[Block]:
        """Blocks of at most `size` events from byte `at` on; their positions are bytes."""
        idle = Idle()
        source.seek(at)
        while True:
            growing = source.growing
            lines, after = _lines(source, at, size)
            if lines:
                yield self._events.block([_object(line) for line in lines], after)
                idle.heard()
                source.done_to(after)
            elif not growing:
                return
            elif idle.wait():
                yield self._events.block([], after)
            at = after


def _lines(source: Source, at: int, most: int) -> tuple[list[bytes], int]:
    """At most so many lines from byte `at`, where the source stands, and the byte after them; of one that grows whole lines only.

    A line longer than `LONGEST` is one, empty.
    """
    lines: list[bytes] = []
    end = at
    while len(lines) < most:
        line = source.readline(LONGEST)
        length = len(line)
        while not line.endswith(b"\n") and length >= LONGEST and (more := source.readline(LONGEST)):
            line, length = more, length + len(more)
        if not length or (not line.endswith(b"\n") and source.growing):
            source.seek(end)
            source.require_whole(end)
            break
        at += length
        if length > LONGEST or line.strip():
            lines.append(b"" if length > LONGEST else line)
            end = at  # blank lines are behind no event
    return lines, end


def _object(line: bytes) -> dict[str, Any] | str:
    """The object in a line; of what is none why."""
    return object_in(line) if line else "a line longer than 1 MiB"
