"""Lines of JSON objects as events: what their keys hold, and blocks of them."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from mapsto.data.streams._cells import TimeCells, label_of, text_of, words_of
from mapsto.data.streams._roles import Roles
from mapsto.data.streams._sources import LONGEST, Idle, Source
from mapsto.kinds import Block, ColumnType, Task
from mapsto_runtime.preprocessing.raw_tables import number_of
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["JsonlReader"]

_HEAD_LINES = 100
"""Lines at the beginning that say what their keys hold."""
_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_Object = dict[str, Any]


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
        lines, _ = _lines(source, self.start, _HEAD_LINES)
        source.seek(self.start)
        head = [found for found in map(_object, lines) if not isinstance(found, str)]
        names = list(dict.fromkeys(name for found in head for name in found))
        roles = roles.of_later(names) if types else roles
        self._roles, self._where = roles, source.where
        self._times = TimeCells(source.where, roles.time)
        self._lists: set[str] = set()
        known = dict.fromkeys((*(types or ()), *names))
        if source.growing:  # what is not there yet may come
            chosen = roles.features or tuple(name for name in known if name and name not in roles.others)
        else:
            late = (
                [roles.target] if roles.id is not None and roles.target is not None else []
            )  # may come after these lines
            chosen = roles.chosen([*dict.fromkeys((*known, *late))], source.where)
        kinds: dict[str, ColumnType | None] = {
            name: (types or {}).get(name) or _type_of([found.get(name) for found in head]) for name in chosen
        }
        lists = {name for name in chosen if kinds[name] is None and _lists_alone([found.get(name) for found in head])}
        self._leave_out(lists)
        self.types: Mapping[str, ColumnType | None] = {name: kind for name, kind in kinds.items() if name not in lists}

    def blocks(self, source: Source, at: int, size: int) -> Iterator[Block]:
        """Blocks of at most `size` events from byte `at` on; their positions are bytes."""
        idle = Idle()
        source.seek(at)
        while True:
            growing = source.growing
            lines, after = _lines(source, at, size)
            if lines:
                yield self._block(lines, after)
                idle.heard()
                source.done_to(after)
            elif not growing:
                return
            elif idle.wait():
                yield self._block([], after)
            at = after

    def _block(self, lines: Sequence[bytes], after: int) -> Block:
        import numpy as np

        roles = self._roles
        found = [_object(line) for line in lines]
        broken = {event: each for event, each in enumerate(found) if isinstance(each, str)}
        events = [_Object() if isinstance(each, str) else each for each in found]
        names = [*self.types]
        if roles.features is None:  # a key that is new is a column that is new
            others = roles.others
            new = dict.fromkeys(name for event in events for name in event if name not in self.types)
            wanted = [name for name in new if name and name not in others and name not in self._lists]
            lists = {name for name in wanted if _lists_alone([event.get(name) for event in events])}
            self._leave_out(lists)
            names += [name for name in wanted if name not in lists]
        x: dict[str, NDArray[Any]] = {}
        given = np.zeros(len(events), np.bool_)
        for name in names:
            values = [event.get(name) for event in events]
            x[name] = _column(values, self.types.get(name), name, broken)
            given |= [value is not None for value in values]
        labels = [None if roles.target is None else event.get(roles.target) for event in events]
        has_y = np.array([label is not None and label != "" for label in labels], np.bool_)
        ids = [event.get(roles.id) for event in events] if roles.id is not None else [None] * len(events)
        return Block(
            times=self._times.read(
                [event.get(roles.time) for event in events] if roles.time is not None else [None] * len(events)
            ),
            ids=words_of(["" if name is None else _word(name) for name in ids]),
            x=x,
            has_x=given | ~has_y if roles.id is not None else np.ones(len(events), np.bool_),
            y=_labels(labels, has_y, roles.task, broken),
            has_y=has_y,
            next=after,
            broken=broken,
        )

    def _leave_out(self, names: set[str]) -> None:
        """Keys of lists, which no column can hold; said once of each."""
        if new := names - self._lists:
            self._lists |= new
            logging.getLogger("mapsto").warning(
                "%s: keys that hold lists are left out: %s", self._where, few(sorted(new), 10)
            )


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


def _object(line: bytes) -> _Object | str:
    """The object in a line; of what is none why."""
    if not line:
        return "a line longer than 1 MiB"
    try:
        found = json.loads(text_of(line).lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return "no JSON"
    if _ESCAPE.search(line) and not _is_unicode(found):
        return "a text that is no Unicode"
    try:
        return _flat(cast("_Object", found)) if isinstance(found, dict) else "no JSON object"
    except RecursionError:
        return "no JSON"


def _flat(found: _Object) -> _Object:
    """The values of objects within an object under dotted names, ``{"door": {"width": 1}}`` as ``door.width``."""
    if not any(isinstance(value, dict) for value in found.values()):
        return found
    flat: _Object = {}
    for name, value in found.items():
        if isinstance(value, dict):
            flat.update((f"{name}.{inner}", each) for inner, each in _flat(cast("_Object", value)).items())
        else:
            flat[name] = value
    return flat


def _is_unicode(value: Any) -> bool:
    """Whether all its texts are: JSON can escape half of a surrogate pair, which no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_of(values: Sequence[Any]) -> ColumnType | None:
    """What the values of a key are; None where all are missing, or lists."""
    there = [value for value in values if isinstance(value, str | int | float) and value != ""]
    if not there:
        return None
    return "word" if any(isinstance(value, str) for value in there) else "number"


def _lists_alone(values: Sequence[Any]) -> bool:
    """Whether all values that are there are lists, and there is one."""
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(value, list) for value in there)


def _column(values: Sequence[Any], kind: ColumnType | None, name: str, broken: dict[int, str]) -> NDArray[Any]:
    """Numbers with NaN for a missing one, or words, or both; an event with a list is added to `broken`."""
    import numpy as np

    if kind == "number":
        try:
            numbers = np.array([math.nan if value is None else value for value in values], np.float64)
            if numbers.ndim == 1:
                return numbers
        except (ValueError, TypeError, OverflowError):
            pass
    cells: list[str | float] = []
    for event, value in enumerate(values):
        if isinstance(value, list):
            broken.setdefault(event, f"'{short(name)}' holds a list")
            cells.append("")
        elif value is None or value == "":
            cells.append("")
        elif kind == "word":
            cells.append(_word(value))
        elif isinstance(value, str):
            number = number_of(value) if kind == "number" else None
            cells.append(value if number is None else number)
        else:
            cells.append(_number(value))
    if kind == "number" and not any(isinstance(cell, str) and cell for cell in cells):
        return np.array([math.nan if cell == "" else cell for cell in cells], np.float64)
    return words_of(cells)


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _word(value: Any) -> str:
    """A value as a word: a whole number without a point, truth values as JSON has them."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def _labels(values: Sequence[Any], has_y: NDArray[Any], task: Task, broken: dict[int, str]) -> NDArray[Any]:
    """The classes or numbers of a block; what is no label is added to `broken`."""
    import numpy as np

    y: NDArray[Any] = np.full(len(values), np.nan) if task == "values" else words_of([""] * len(values))
    for event in np.flatnonzero(has_y).tolist():
        value = values[event]
        if isinstance(value, list):
            broken.setdefault(event, "a label that is a list")
        elif task == "classes":
            y[event] = _word(value)
        else:
            number = label_of(value, comma=False) if isinstance(value, str) else _number(value)
            if number is None:
                broken.setdefault(event, "a label that is no number")
            else:
                y[event] = number
    return y
