"""Holes of a recipe: places where a search tries several values, `{choice: […]}` or `{range: [low, high]}`, or several steps.

Here is only how they are told from other values; `mapsto.search.space` reads and fills them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from mapsto import discovery
from mapsto.recipe.yaml_text import Place

__all__ = ["STEP_HOLES", "VALUE_HOLES", "has_field", "hole_key", "holes_in"]

VALUE_HOLES = ("choice", "range")
"""The entry that makes a value a hole."""
STEP_HOLES = ("choice", "any_order")
"""The entry that makes a step a hole."""
_GROUPS = ("mappings", "data", "streams", "augment")


def hole_key(keys: Iterable[str], among: tuple[str, ...], owner: str = "") -> str | None:
    """Which of the entries `among` makes a hole of a mapping with these keys; None where it is none.

    `owner` is the key whose value it is: where that is the name of a mapping, data set or augmentation with a field of this name, it is a
    field.

    >>> hole_key(["range", "log"], VALUE_HOLES), hole_key(["padding"], VALUE_HOLES)
    ('range', None)
    """
    found = next((key for key in among if key in set(keys)), None)
    return None if found is None or has_field(owner, found) else found


def has_field(owner: str, field: str) -> bool:
    """Whether a name of the catalogue has a field of this name."""
    for group in _GROUPS:
        if owner in discovery.entries(group):
            return field in getattr(discovery.find(group, owner), "__pydantic_fields__", {})
    return False


def holes_in(document: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Where a document has holes, and what each is."""
    for entry in ("data", "steps"):
        yield from _within(document.get(entry), (entry,), "")


def _within(node: Any, place: Place, owner: str) -> Iterator[tuple[Place, str]]:
    if isinstance(node, list):
        for at, part in enumerate(cast("list[Any]", node)):
            yield from _within(part, (*place, at), "")
    if not isinstance(node, dict):
        return
    tree = {str(key): part for key, part in cast("dict[Any, Any]", node).items()}
    is_step = len(place) > 1 and isinstance(place[-1], int)
    key = hole_key(tree, (*VALUE_HOLES, *STEP_HOLES), owner)
    if key is not None:
        yield (*place, key), f"'{key}' makes this a hole"
        return
    if is_step and tree.get("optional") is True:
        yield (*place, "optional"), "this step is optional"
    for name, part in tree.items():
        yield from _within(part, (*place, name), name)
