"""What lies in a mapping's fields, however deep: names of steps, data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, cast

from mapsto.kinds import Dataset, Frozen, Stream, Tasks
from mapsto.mapping import Chain, Fork, Labelled, Mapping, Observe

__all__ = ["data_of", "names_of", "unbounded"]


def names_of(value: Any) -> Iterator[str]:
    """What ``--force`` can name: every mapping's name and label in a mapping, and every report's name."""
    if isinstance(value, Labelled):
        yield value.label
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        if not isinstance(value, (Chain, Labelled, Fork, Observe)):
            yield mapping.name
        if isinstance(value, Observe):
            yield from value.reports
        if isinstance(value, Fork):
            yield from value.branches
    for part in _parts(value):
        yield from names_of(part)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Frozen):
        return [getattr(value, f.name) for f in dataclasses.fields(cast("Any", value))]
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value).values()
    return cast("Iterable[Any]", value) if isinstance(value, (tuple, list)) else ()


def data_of(value: Any) -> Iterator[Any]:
    """Every data set, tasks and stream in a mapping's fields, however deep."""
    if isinstance(value, (Dataset, Tasks, Stream)):
        yield value
        return
    for part in _parts(value):
        yield from data_of(part)


def unbounded(mapping: Mapping[Any, Any]) -> bool:
    """Whether a mapping reads a stream that has no end: what it has come to then is never a result that could be used again."""
    return any(isinstance(data, Stream) and not data.bounded for data in data_of(mapping))
