"""Mappings back to YAML: only what differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from mapsto.data.augment import Augmentation, Auto
from mapsto.discovery import name_of
from mapsto.errors import SpecError
from mapsto.kinds import Dataset, Frozen, Network, Stream, Tasks
from mapsto.mapping import Chain, Fork, Labelled, Observe, Ref, steps_of
from mapsto.mapping import Mapping as MapstoMapping
from mapsto.nn.online.members import Member
from mapsto.recipe.document import SCHEMA, Recipe

if TYPE_CHECKING:
    from mapsto.recipe.document import AnyMapping

__all__ = ["dump", "factories_in", "node_of"]


def dump(recipe: Recipe | AnyMapping) -> str:
    """A recipe or a mapping as YAML; `parse_recipe` gives it back."""
    document = recipe if isinstance(recipe, Recipe) else Recipe(steps=recipe)
    tree: dict[str, Any] = {"schema": SCHEMA}
    if document.name != "recipe":
        tree["name"] = document.name
    if document.title:
        tree["title"] = document.title
    tree["seed"] = document.seed
    if document.data:
        entries = list(document.data.items())
        tree["data"] = {
            label: node_of(entry, [(known, name) for name, known in entries[:i] if known != entry])
            for i, (label, entry) in enumerate(entries)
        }
    names = [(entry, label) for label, entry in document.data.items()]
    tree["steps"] = nodes_of(document.steps, names)
    if document.quick:
        tree["quick"] = dict(document.quick)
    if document.targets:
        tree["targets"] = [dict(target) for target in document.targets]
    if document.serve is not None:
        tree["serve"] = dict(document.serve)
    return yaml.safe_dump(tree, sort_keys=False, width=110, allow_unicode=True)


def factories_in(recipe: Recipe) -> list[str]:
    """``package.module:callable`` of each of its steps that names one."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for name, part in cast("dict[Any, Any]", node).items():
                if name == "factory" and isinstance(part, str):
                    yield part
                yield from walk(part)
        elif isinstance(node, list):
            for part in cast("list[Any]", node):
                yield from walk(part)

    return list(dict.fromkeys(walk(nodes_of(recipe.steps))))


Names = Sequence[tuple[Any, str]]


def nodes_of(mapping: AnyMapping, names: Names = ()) -> list[Any]:
    """The list of step nodes of a mapping."""
    nodes: list[dict[str, Any]] = []
    for step in steps_of(mapping):
        if isinstance(step, Observe) and nodes:
            nodes[-1].setdefault("observe", {}).update({k: node_of(v, names) for k, v in step.reports.items()})
            continue
        nodes.append(cast("dict[str, Any]", node_of(step, names)))
    return nodes


def node_of(value: Any, names: Names = ()) -> Any:
    """A field's value, data set or mapping as plain YAML."""
    for entry, label in names:
        if isinstance(value, Frozen) and value == entry:
            return f"${label}"
    if isinstance(value, Ref):
        return f"${value.label}"
    if isinstance(value, Labelled):
        return {**cast("dict[str, Any]", node_of(value.mapping, names)), "as": value.label}
    if isinstance(value, Chain):
        return nodes_of(value, names)
    if isinstance(value, Fork):
        return {"fork": {label: nodes_of(branch, names) for label, branch in value.branches.items()}}
    if isinstance(value, Observe):
        return {"observe": {label: node_of(report, names) for label, report in value.reports.items()}}
    if isinstance(value, Network):
        raise SpecError(
            "a network held in memory cannot be written into a recipe", hint="refer to a labelled step instead"
        )
    if isinstance(value, (MapstoMapping, Dataset, Tasks, Stream)):
        return {name_of(type(cast("Any", value))): changed_fields(cast("Frozen", value), names)}
    if isinstance(value, Augmentation):
        return {value.name: changed_fields(value, names)}
    if isinstance(value, Auto):
        return "auto"
    if isinstance(value, Member):
        return value.node()
    if isinstance(value, Frozen):
        return changed_fields(value, names)
    if isinstance(value, dict):
        return {k: node_of(v, names) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (tuple, list)):
        return [node_of(v, names) for v in cast("list[Any]", value)]
    if isinstance(value, Path):
        return str(value)
    return value


def changed_fields(value: Frozen, names: Names = ()) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    infos: Mapping[str, Any] = cast("Any", type(value)).__pydantic_fields__
    fields: dict[str, Any] = {}
    for name, info in infos.items():
        current = getattr(value, name)
        if info.is_required() or current != info.get_default(call_default_factory=True, validated_data={}):
            fields[name] = node_of(current, names)
    return fields
