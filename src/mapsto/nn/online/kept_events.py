"""Raw events that are kept for later, the last ones: each with its features and something of JSON, as its label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto.kinds import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Json, Task

__all__ = ["KeptEvents", "block_of", "features_of"]

Features = Mapping[str, Any]
"""A number, a word or an array each."""


class KeptEvents:
    """At most so many; the oldest go first. Events have names, those of one without are their numbers.

    >>> kept = KeptEvents(2)
    >>> for number in range(3):
    ...     kept.add({"x": float(number)}, "yes", f"q{number}")
    >>> [name for name, _, _ in kept], kept.pop("q1")
    (['q1', 'q2'], ({'x': 1.0}, 'yes'))
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, tuple[Features, Json]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[str, Features, Json]]:
        return ((name, x, value) for name, (x, value) in self._kept.items())

    def add(self, x: Features, value: Json, name: str = "") -> None:
        """Keep an event; a later one of the same name takes its place."""
        self._count += 1
        name = name or str(self._count)
        self._kept.pop(name, None)
        self._kept[name] = (x, value)
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def pop(self, name: str) -> tuple[Features, Json] | None:
        """The event of a name, which is then no longer kept; None where there is none."""
        return self._kept.pop(name, None)

    def last(self, count: int) -> list[tuple[Features, Json]]:
        """The last so many, the oldest first."""
        return list(self._kept.values())[-count:]

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Numbers and arrays of all events, a column each, in the order of `values`."""
        found: dict[str, NDArray[Any]] = {}
        for place, (name, kind) in enumerate(self._columns().items()):
            if kind != "word":
                cells = [x[name] for x, _ in self._kept.values() if name in x]
                found[str(place)] = np.array(cells)
        return found

    def values(self) -> dict[str, Any]:
        """The rest of the state."""
        columns = self._columns()
        return {
            "count": self._count,
            "names": list(self._kept),
            "values": [value for _, value in self._kept.values()],
            "columns": [
                {
                    "name": name,
                    "kind": kind,
                    "events": [at for at, (x, _) in enumerate(self._kept.values()) if name in x],
                    **({"words": [x[name] for x, _ in self._kept.values() if name in x]} if kind == "word" else {}),
                }
                for name, kind in columns.items()
            ],
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where it does not fit together."""
        names, kept = [str(name) for name in values["names"]], cast("list[Json]", values["values"])
        if len(names) != len(kept) or len({*names}) != len(names):
            raise ValueError(f"{len(kept)} events with {len(names)} names")
        events: list[dict[str, Any]] = [{} for _ in names]
        for place, column in enumerate(values["columns"]):
            cells = cast("Sequence[Any]", column["words"] if column["kind"] == "word" else arrays[str(place)])
            if len(cells) != len(column["events"]):
                raise ValueError(f"{len(cells)} values of '{column['name']}' for {len(column['events'])} events")
            for event, cell in zip(column["events"], cells, strict=True):
                events[event][column["name"]] = float(cell) if column["kind"] == "number" else _own(cell)
        self._kept = dict(zip(names, zip(events, kept, strict=True), strict=True))
        self._count = int(values["count"])

    def _columns(self) -> dict[str, str]:
        """Column → number, word, or the type and shape of its arrays."""
        found: dict[str, str] = {}
        for x, _ in self._kept.values():
            for name, value in x.items():
                if name not in found:
                    found[name] = _kind_of(value)
        return found


def _own(cell: Any) -> Any:
    return cell if isinstance(cell, str) else np.array(cell)


def _kind_of(value: Any) -> str:
    if isinstance(value, str):
        return "word"
    return "number" if isinstance(value, float) else "array"


def features_of(block: Block, event: int) -> dict[str, Any]:
    """An event's features: floats, strings and arrays. A missing value is none, whichever columns the rest of its block has."""
    found: dict[str, Any] = {}
    for name, column in block.x.items():
        value = column[event]
        if column.ndim > 1:
            found[name] = np.array(value)
        elif column.dtype.kind in "OU":
            if value != "":
                found[name] = str(value)
        elif not np.isnan(value):
            found[name] = float(value)
    return found


def block_of(events: Sequence[Features], labels: Sequence[Any], task: Task) -> Block:
    """Events with their labels as a block."""
    count = len(events)
    names = dict.fromkeys(name for each in events for name in each)
    x: dict[str, NDArray[Any]] = {}
    for name in names:
        cells = [each.get(name) for each in events]
        first = next(cell for cell in cells if cell is not None)
        if isinstance(first, str):
            x[name] = np.array(["" if cell is None else str(cell) for cell in cells], object)
        elif isinstance(first, float):
            x[name] = np.array([np.nan if cell is None else cell for cell in cells], np.float64)
        else:
            x[name] = np.stack([np.zeros_like(first) if cell is None else cell for cell in cells])
    there = np.ones(count, np.bool_)
    return Block(
        times=np.full(count, np.nan),
        ids=np.full(count, "", object),
        x=x,
        has_x=there,
        y=np.array(labels, np.float64 if task == "values" else object),
        has_y=there,
        next=None,
    )
