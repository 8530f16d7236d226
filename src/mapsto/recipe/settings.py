"""Steps as settings address them: ``teacher.epochs``, by label or by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

__all__ = ["addresses", "listed"]


def addresses(document: dict[str, Any]) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    """What ``--set`` can name: (label or name, (the dict, the key) whose value holds its fields)."""
    for label, node in cast("dict[Any, Any]", document.get("data") or {}).items():
        if isinstance(label, str) and isinstance(node, dict) and len(cast("dict[str, Any]", node)) == 1:
            yield label, (cast("dict[str, Any]", node), next(iter(cast("dict[str, Any]", node))))
    yield from _step_addresses(cast("list[Any]", document.get("steps") or []))


def listed(nodes: Any, name: str) -> Any:
    """The entry ``{name: fields}`` of a list such as ``[flip, crop: {padding: 4}]``; what is no such list stays as it is.

    Raises `LookupError`, which says what the list has, where it has no such entry, or several.

    >>> listed(["flip", {"crop": {"padding": 4}}], "flip"), listed([3, 3], "flip")
    ({'flip': {}}, [3, 3])
    >>> listed(["flip", {"crop": {"padding": 4}}], "noise")
    Traceback (most recent call last):
    LookupError: no entry 'noise', but flip, crop; give the whole list
    """
    names: list[str | None] = list(map(_name_of, cast("list[Any]", nodes))) if isinstance(nodes, list) else [None]
    if None in names:
        return nodes
    if names.count(name) != 1:
        there = f"no entry '{name}', but {', '.join(map(str, names)) or 'none at all'}"
        raise LookupError(f"{there if name not in names else f'several entries {name!r}'}; give the whole list")
    at = names.index(name)
    if nodes[at] == name or nodes[at][name] is None:
        nodes[at] = {name: {}}
    return nodes[at]


def _name_of(node: Any) -> str | None:
    """The name of an entry of a list, as ``flip`` or ``{flip: {}}``."""
    if isinstance(node, dict) and len(cast("dict[Any, Any]", node)) == 1:
        return str(next(iter(cast("dict[Any, Any]", node))))
    return node if isinstance(node, str) else None


def _step_addresses(nodes: list[Any]) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    for node in nodes:
        if not isinstance(node, dict):
            continue
        step = cast("dict[Any, Any]", node)
        for key, fields in step.items():
            if key in ("as", "observe") or not isinstance(key, str):
                continue
            if key == "fork" and isinstance(fields, dict):
                for branch in cast("dict[str, Any]", fields).values():
                    yield from _step_addresses(cast("list[Any]", branch if isinstance(branch, list) else [branch]))
            for name in dict.fromkeys((str(step.get("as") or key), key)):
                yield name, (step, key)
        reports = step.get("observe")
        if isinstance(reports, dict):
            key = str(next((key for key in step if key not in ("as", "observe")), ""))
            for label, report in cast("dict[str, Any]", reports).items():
                if isinstance(report, dict) and len(cast("dict[str, Any]", report)) == 1:
                    name = next(iter(cast("dict[str, Any]", report)))
                    for stage in dict.fromkeys((str(step.get("as") or key), key)):
                        yield f"{stage}.{label}", (cast("dict[str, Any]", report), name)
