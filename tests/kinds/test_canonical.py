"""What enters keys: fields that are not at their default."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pydantic
import pytest

from mapsto import discovery
from mapsto.context import Numerics
from mapsto.errors import MissingExtra
from mapsto.kinds import Frozen
from mapsto.kinds.canonical import dumps, plain_defaults
from mapsto.mapping import Mapping
from mapsto.store.digest import fields_tree, step_key


class Theirs(Mapping[None, Any]):
    """Of another package."""

    share: float = 0.5


def key(mapping: Mapping[Any, Any]) -> str:
    unknown: Any = None
    return step_key(mapping, (), seed=0, numerics=Numerics(), kernels=True, resolve=unknown, source=unknown)


def ours(**fields: Any) -> type[Mapping[Any, Any]]:
    """A mapping of mapsto with these fields (type, default)."""
    body = {"__annotations__": {name: kind for name, (kind, _) in fields.items()}, "__module__": "mapsto.made_up"}
    return type("Made", (Mapping,), body | {name: default for name, (_, default) in fields.items()})


def test_a_new_field_leaves_every_key_as_it_was() -> None:
    before, after = ours(share=(float, 0.5)), ours(share=(float, 0.5), rounds=(int, 1), sizes=(tuple[int, ...], (3, 3)))
    assert key(before()) == key(after()) == key(after(share=0.5, rounds=1, sizes=(3, 3)))
    assert key(before(share=0.25)) == key(after(share=0.25)) != key(before())
    assert key(after(rounds=2)) != key(after())


def test_numbers_that_python_holds_for_equal_are_told_apart() -> None:
    wide = ours(share=(bool | int | float, True))
    assert len({key(wide(share=value)) for value in (True, 1, 1.0, 0)}) == 4


class Part(Frozen):
    """A value with fields of its own."""

    degrees: float = 0.0


def test_what_is_no_plain_data_is_always_written() -> None:
    holds = ours(part=(Part, Part()), plain=(int, 0))
    assert set(fields_tree(holds(), lambda value: {"$": "part"} if isinstance(value, Part) else value)) == {
        *("$", "version", "part")
    }


def test_classes_of_others_are_written_whole() -> None:
    assert fields_tree(Theirs(), lambda value: value)["share"] == 0.5


@pytest.mark.parametrize(("group", "least"), [("mappings", 50), ("data", 50), ("augment", 10)])
def test_a_default_that_is_given_counts_as_one(group: str, least: int) -> None:
    """Written out in a recipe it is the same value, to the type."""
    tried = 0
    for name in discovery.entries(group):
        try:
            cls: Any = discovery.find(group, name)
        except MissingExtra:
            continue
        for field, default in plain_defaults(cls).items():
            info = cls.__pydantic_fields__[field]
            given = pydantic.TypeAdapter(
                Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
            )
            assert dumps(given.validate_python(json.loads(default))) == default, f"{name}: {field}"
            tried += 1
    assert tried > least
