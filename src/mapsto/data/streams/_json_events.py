"""Objects of JSON as events: what their keys hold, and blocks of them."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from mapsto.data.streams._cells import TimeCells, label_of, text_of, words_of
from mapsto.data.streams._roles import Roles
from mapsto.kinds import Block, ColumnType, Json, Task
from mapsto_runtime.preprocessing.raw_tables import number_of
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["HEAD", "JsonEvents", "object_in"]

HEAD = 100
"""Objects at the beginning that say what their keys hold."""
_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_Object = dict[str, Any]


class JsonEvents:
    """What the keys of a source's objects hold, and its blocks.

    Parameters
    ----------
    first
        Its first objects, or why one is none.
    roles
        What the keys are for.
    where
        What messages call the source.
    growing
        Whether keys may come that are not there yet.
    named
        Whether events have ids, from a key or from elsewhere.
    types
        Keys whose type is known from elsewhere.
    """

    def __init__(
        self,
        first: Sequence[_Object | str],
        roles: Roles,
        where: str,
        *,
        growing: bool,
        named: bool,
        types: Mapping[str, ColumnType | None] | None = None,
    ) -> None:
        head = [found for found in first if not isinstance(found, str)]
        names = list(dict.fromkeys(name for found in head for name in found))
        roles = roles.of_later(names) if types else roles
        self._roles, self._where, self._named = roles, where, named
        self._times = TimeCells(where, roles.time)
        self._lists: set[str] = set()
        known = dict.fromkeys((*(types or ()), *names))
        if growing:  # what is not there yet may come
            chosen = roles.features or tuple(name for name in known if name and name not in roles.others)
        else:
            late = [roles.target] if named and roles.target is not None else []  # may come after these objects
            chosen = roles.chosen([*dict.fromkeys((*known, *late))], where)
        kinds: dict[str, ColumnType | None] = {
            name: (types or {}).get(name) or _type_of([found.get(name) for found in head]) for name in chosen
        }
        lists = {name for name in chosen if kinds[name] is None and _lists_alone([found.get(name) for found in head])}
        self._leave_out(lists)
        self.types: Mapping[str, ColumnType | None] = {name: kind for name, kind in kinds.items() if name not in lists}

    def block(
        self,
        found: Sequence[_Object | str],
        after: Json,
        *,
        ids: Sequence[str] | None = None,
        times: Sequence[float] | NDArray[np.float64] | None = None,
    ) -> Block:
        """The block of objects, or of why one is none; `ids` and `times` stand for those that no key holds."""
        import numpy as np

        roles = self._roles
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
            given |= np.array([value is not None for value in values], np.bool_)
        labels = [None if roles.target is None else event.get(roles.target) for event in events]
        has_y = np.array([label is not None and label != "" for label in labels], np.bool_)
        if roles.id is not None:
            ids = ["" if name is None else _word(name) for name in (event.get(roles.id) for event in events)]
        if roles.time is not None or times is None:
            cells = [None if roles.time is None else event.get(roles.time) for event in events]
            times = self._times.read(cells)
        return Block(
            times=np.array(times, np.float64),
            ids=words_of(ids if ids is not None else [""] * len(events)),
            x=x,
            has_x=given | ~has_y if self._named else np.ones(len(events), np.bool_),
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


def object_in(line: bytes) -> _Object | str:
    """The object in a text; of what is none why."""
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
