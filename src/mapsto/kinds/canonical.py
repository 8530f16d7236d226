"""The canonical form of a configuration: JSON with sorted keys, without the fields that are at their default.

A field that is left out where it is at its default can be added to a class without changing the key of any stored result. What is left out
is part of the version: a changed default needs a new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from mapsto.kinds.frozen import Frozen

__all__ = ["dumps", "plain_defaults", "source_digest", "without_defaults"]


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN; 1 and 1.0 differ.

    >>> dumps({"b": 1.0, "a": 1})
    '{"a":1,"b":1.0}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


@cache
def plain_defaults(cls: type[Frozen]) -> Mapping[str, str]:
    """Field → the canonical JSON of its default, where that is plain data: nothing, truth values, numbers, texts, lists and dicts of these.

    Defaults are compared as JSON, in which 1, 1.0 and true differ. A class outside mapsto has none: whether its defaults stay is not in the
    lock.

    >>> class Step(Frozen):
    ...     share: float = 0.5
    ...     sizes: tuple[int, ...] = (3, 3)
    >>> Step.__module__ = "mapsto.somewhere"
    >>> dict(plain_defaults(Step))
    {'share': '0.5', 'sizes': '[3,3]'}
    """
    if not cls.__module__.startswith("mapsto."):
        return {}
    fields: Mapping[str, Any] = cast("Any", cls).__pydantic_fields__
    found: dict[str, str] = {}
    for field in dataclasses.fields(cast("Any", cls)):
        info = fields[field.name]
        if info.is_required():
            continue
        default = info.get_default(call_default_factory=True, validated_data={})
        if _is_plain(default):
            found[field.name] = dumps(default)
    return found


def without_defaults(cls: type[Frozen], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, each in its canonical form, without those at a plain default.

    >>> class Step(Frozen):
    ...     share: float = 0.5
    ...     rounds: int = 1
    >>> Step.__module__ = "mapsto.somewhere"
    >>> without_defaults(Step, {"share": 0.5, "rounds": 2})
    {'rounds': 2}
    """
    defaults = plain_defaults(cls)
    return {name: tree for name, tree in fields.items() if name not in defaults or dumps(tree) != defaults[name]}


@cache
def source_digest(cls: type[Any]) -> str:
    """The digest of the file a third party's class is defined in: its version alone is not ours to trust."""
    try:
        file = inspect.getfile(cls)
    except (TypeError, OSError):
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, cast("list[Any]", value)))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in cast("dict[Any, Any]", value).items())
    return False
