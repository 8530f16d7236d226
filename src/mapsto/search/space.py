"""The space of a recipe with holes: which there are, and a recipe for values of them.

    - prune.taylor: {macs: {range: [0.1, 0.9]}, data: $train}
    - distill.logits: {teacher: $big, data: $train, temperature: {range: [1, 8], log: true}}
      as: distilled
      optional: true
    - choice: {int8: [quantize.static: {data: $train}], bf16: [quantize.bf16: {}]}
      as: small

A hole within an option exists only where that option is taken. A step that is left out hands its label and its reports to the step
before it, so that `$distilled` and ``distilled.accuracy.accuracy`` mean what is there in its place.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from mapsto import discovery
from mapsto.errors import SpecError, nearest
from mapsto.recipe.holes import STEP_HOLES, VALUE_HOLES, hole_key, holes_in
from mapsto.recipe.reader import findings_in, recipe_file, recipe_of
from mapsto.recipe.writer import dump
from mapsto.recipe.yaml_text import position, read_yaml
from mapsto.search.holes import Filled, Hole, same
from mapsto.search.settings import findings_of, settings_of

if TYPE_CHECKING:
    from mapsto.recipe.document import Recipe

__all__ = ["Candidate", "Space", "Suggest", "load_space", "parse_space"]

Suggest = Callable[[Hole], Any]
_MOST_BLOCKS = 5
"""Blocks whose order is searched: 120 orders."""
_LARGEST = 2**53
"""Whole numbers up to which each is a float."""
_STEP_ENTRIES = ("as", "observe")
_ALLOWED = {
    "choice": ("choice", "default"),
    "range": ("range", "log", "step", "default"),
    "any_order": ("any_order", *_STEP_ENTRIES),
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe whose holes are filled."""

    recipe: Recipe
    holes: Filled
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Label of a step that is left out → the label of what is there in its place."""

    @property
    def text(self) -> str:
        """Its YAML."""
        return dump(self.recipe)


@dataclass(frozen=True, kw_only=True)
class Space:
    """All recipes that a recipe with holes stands for."""

    root: Any
    """The document's nodes."""
    holes: tuple[Hole, ...]
    search: Mapping[str, Any]
    """The recipe's section ``search``."""
    where: str = "recipe"
    name: str = "recipe"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    quick: bool = False
    said: tuple[str, ...] = ()
    """What a user has to know of it, as which orders of steps are left out."""
    _at: Mapping[int, Hole] = field(default_factory=dict[int, Hole], repr=False)
    _named: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    _broken: Mapping[int, Any] = field(default_factory=dict[int, Any], repr=False)

    def fill(self, suggest: Suggest) -> Candidate:
        """The recipe for what `suggest` gives for each hole that there is; it is asked once for each."""
        filler = _Filler(self._at, self._named, suggest)
        root = filler.document(self.root)
        recipe = recipe_of(
            root, _plain(root), where=self.where, name=self.name, settings=self.settings, quick=self.quick
        )
        return Candidate(recipe=recipe, holes=filler.holes, aliases=filler.aliases)

    def ask(self, suggest: Suggest) -> Filled:
        """What `suggest` gives for each hole that there is, without making the recipe."""
        filler = _Filler(self._at, self._named, suggest)
        filler.document(self.root)
        return filler.holes

    def at(self, holes: Mapping[str, Any]) -> Candidate:
        """The recipe for these values; a hole that is not named is at its default. Raises `SpecError` for a value outside the space."""
        self.check(holes)
        return self.fill(lambda hole: holes.get(hole.name, hole.default))

    def check(self, holes: Mapping[str, Any]) -> None:
        """Raises `SpecError` where a hole is not known or cannot have its value."""
        known = {hole.name: hole for hole in self.holes}
        for name, value in holes.items():
            if name not in known:
                raise SpecError(f"there is no hole '{name}'", where=self.where, hint=nearest(name, known))
            if not known[name].contains(value):
                raise SpecError(f"{value!r} is not in the hole '{name}'", where=self.where, hint=_allowed(known[name]))

    def position(self, place: tuple[str | int, ...]) -> tuple[int, int]:
        """Line and column of a path in the document."""
        return position(self.root, place)

    @property
    def fixed_data(self) -> tuple[str, ...]:
        """The labels of data without a hole, which every trial reads alike; what a recipe calls optional is none of them."""
        document = cast("dict[str, Any]", _plain(self.root))
        data = cast("dict[str, Any]", document.get("data") or {})
        loose = {label for label, tree in data.items() if any(holes_in({"data": {label: tree}}))} | set(self._named)
        for _ in data:  # what is made of loose data is loose
            loose |= {label for label, tree in data.items() if any(name in loose for name in _names_in(tree))}
        return tuple(label for label in data if label not in loose and label not in (document.get("optional") or ()))

    @property
    def size(self) -> float:
        """How many recipes there are at most, conditional holes counted everywhere."""
        return math.prod(hole.size for hole in self.holes)

    def samples(self) -> Iterator[Filled]:
        """Values with which each option, and both ends of each range, are in a recipe once."""
        yield from _samples(self.holes)

    def identity(self) -> str:
        """What the space is, as text: two searches with the same may share their trials."""
        entries = {key: part for key, part in _plain(self.root).items() if key not in ("title", "targets", "search")}
        named = self.search.get("holes") or {}
        return json.dumps([entries, named, dict(self.settings), self.quick], sort_keys=True, default=str)


def load_space(source: str | Path, *, settings: Mapping[str, Any] | None = None, quick: bool = False) -> Space:
    """The space of a recipe's file, or of a shipped recipe. Raises `SpecError` with all of its errors."""
    text, name = recipe_file(source)
    return parse_space(text, where=str(source), name=name, settings=settings, quick=quick)


def parse_space(
    text: str,
    *,
    where: str = "recipe",
    name: str = "recipe",
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    given: Mapping[str, Any] | None = None,
) -> Space:
    """The space of a recipe with holes, as YAML. Raises `SpecError` with all of its errors, each with line and column.

    `given` stands in the place of entries of its section ``search``, as a command says them.
    """
    root, tree = read_yaml(text, where=where)
    if not isinstance(tree, dict):
        raise SpecError("a recipe is a mapping with the entries schema, data and steps", where=where)
    document = cast("dict[str, Any]", tree)
    visitor = _Visitor(root)
    visitor.document()
    search: Any = document.get("search") or {}
    if search and not isinstance(search, dict):
        visitor.errors.append((*position(root, ("search",)), f"search: a mapping of entries, got {_short(search)}"))
    space = Space(
        root=root,
        holes=tuple(visitor.holes.values()),
        search=search if isinstance(search, dict) else {},
        where=where,
        name=str(document.get("name", name)),
        settings=dict(settings or {}),
        quick=quick,
        _at=visitor.at,
        _named=visitor.named,
        _broken=visitor.broken,
    )
    errors = visitor.errors
    found = {finding for holes in _samples(space.holes) for finding in _findings(space, holes)}
    errors = [
        *errors,
        *(finding for finding in found if not visitor.covers(finding)),
        *_search_findings(space, given),
    ]
    none = "this recipe has no holes, so that there is nothing to search"
    remedy = "write {choice: [a, b]} or {range: [low, high]} in the place of a value, or `optional: true` in a step"
    if not space.holes and not visitor.errors and errors:
        errors.append((1, 1, f"{none}; {remedy}"))
    elif not space.holes and not errors:
        raise SpecError(none, where=where, hint=remedy)
    if errors:
        lines = [f"{where}:{line}:{column}: {message}" for line, column, message in sorted(set(errors))]
        raise SpecError(lines[0] if len(lines) == 1 else f"{len(lines)} errors\n" + "\n".join(lines))
    return _without_impossible_orders(space)


def _without_impossible_orders(space: Space) -> Space:
    """The space less those orders of steps in which one of them refers to a later one, or cannot take what comes to it."""
    changed: dict[str, Hole] = {}
    said: list[str] = []
    for hole in space.holes:
        if hole.kind != "order":
            continue
        wrong = {
            order: found[0][2]
            for order in hole.options[1:]
            if (found := _findings(space, {**dict(hole.parents), hole.name: order}))
        }
        if wrong:
            left = tuple(order for order in hole.options if order not in wrong)
            changed[hole.name] = _renamed(hole, hole.name, options=left)
            first, why = next(iter(wrong.items()))
            said.append(f"{hole.name}: {len(wrong)} of {len(hole.options)} orders cannot be, as {first} ({why})")
    if not changed:
        return space
    at = {node: changed.get(hole.name, hole) for node, hole in space._at.items()}  # pyright: ignore[reportPrivateUsage]
    holes = tuple(changed.get(hole.name, hole) for hole in space.holes)
    return dataclasses.replace(space, holes=holes, said=tuple(said), _at=at)


def _findings(space: Space, holes: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    """What is wrong with the recipe for some values."""
    filler = _Filler(space._at, space._named, lambda hole: holes.get(hole.name, hole.default), space._broken)  # pyright: ignore[reportPrivateUsage]
    root = filler.document(space.root)
    return [*filler.errors, *findings_in(root, _plain(root), where=space.where)]


def _search_findings(space: Space, given: Mapping[str, Any] | None) -> list[tuple[int, int, str]]:
    """What is wrong with the section ``search``."""
    return findings_of(space, given) or list(_unwritten_reports(space, given))


def _unwritten_reports(space: Space, given: Mapping[str, Any] | None) -> Iterator[tuple[int, int, str]]:
    """Names of metrics whose step or report is written nowhere, which is known of a recipe that has other errors too."""
    goals = settings_of(space, given).goals
    names, reports, paths = _written(_entry(space.root, "steps"))
    for at, name in enumerate(dict.fromkeys(each.metric for each in (*goals.objectives, *goals.limits))):
        path, _, metric = name.rpartition(".")
        stage, _, report = path.rpartition(".")
        if stage and (report not in reports or stage.partition("#")[0] not in names):
            line, column = space.position(("search", "objectives", at, "metric"))
            known = [f"{each}.{metric}" for each in paths]
            yield line, column, f"no step reports '{name}' ({nearest(name, known, most=8)})"


def _written(steps: Any) -> tuple[set[str], set[str], list[str]]:
    """What steps are called, what their reports are called, and ``step.report`` of each, in all branches."""
    names, reports, paths, pending = set[str](), set[str](), list[str](), [steps]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.SequenceNode):
            pending += cast("list[Any]", node.value)
        for key, value in _entries(node):
            names.update((key, _text(value) or key) if key == "as" else (key,))
            pending.append(value)
            if key == "observe":
                there = [report for report, _ in _entries(value)]
                reports.update(there)
                paths += [f"{_step_name(node)}.{report}" for report in there]
    return names, reports, paths


def _samples(holes: tuple[Hole, ...]) -> Iterator[dict[str, Any]]:
    """Values with which each option, and both ends of each range, are in a recipe once."""
    yield {}
    for hole in holes:
        if hole.kind == "order":
            continue
        for value in (hole.low, hole.high) if hole.kind == "range" else hole.options:
            yield {**dict(hole.parents), hole.name: hole.rounded(value) if hole.kind == "range" else value}


def _allowed(hole: Hole) -> str:
    if hole.kind != "range":
        return f"one of {', '.join(map(str, hole.options))}"
    return f"{'a whole number' if hole.whole else 'a number'} from {hole.low:g} to {hole.high:g}"


def _plain(node: Any) -> Any:
    """The plain values of nodes."""
    loader = yaml.SafeLoader("")
    try:
        return cast("Any", loader).construct_document(node)
    finally:
        cast("Any", loader).dispose()


def _names_in(tree: Any) -> Iterator[str]:
    """The names of all ``$name`` in plain values."""
    if isinstance(tree, str) and tree[:1] == "$":
        yield tree[1:]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for part in cast("Iterable[Any]", parts):
        yield from _names_in(part)


def _entries(node: Any) -> list[tuple[str, Any]]:
    """Key and value node of a mapping node."""
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(str(key.value), value) for key, value in cast("list[tuple[Any, Any]]", node.value)]


def _entry(node: Any, key: str) -> Any:
    return dict(_entries(node)).get(key)


def _text(node: Any) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def _step_name(node: Any) -> str:
    """A step's label, or its mapping's name."""
    entries = dict(_entries(node))
    label = _text(entries.get("as"))
    return label or next((key for key in entries if key not in (*_STEP_ENTRIES, "optional")), "step")


def _options_of(node: Any) -> list[tuple[Any, Any]]:
    """The options of a choice's node: (value that stands for it, its node)."""
    if isinstance(node, yaml.MappingNode):
        return list(_entries(node))
    found: list[tuple[Any, Any]] = []
    for part in cast("list[Any]", node.value) if isinstance(node, yaml.SequenceNode) else []:
        plain = _plain(part)
        found.append(
            (plain if isinstance(part, yaml.ScalarNode) else json.dumps(plain, ensure_ascii=False, default=str), part)
        )
    return found


def _order_name(blocks: list[Any], order: tuple[int, ...]) -> str:
    names = [" + ".join(_step_name(step) for step in block.value) for block in blocks]
    return " > ".join(names[at] if names.count(names[at]) == 1 else f"{names[at]} ({at + 1})" for at in order)


def _orders(node: Any) -> list[tuple[str, tuple[int, ...]]]:
    blocks = cast("list[Any]", node.value)
    return [(_order_name(blocks, order), order) for order in itertools.permutations(range(len(blocks)))]


class _Visitor:
    """Finds all holes of a document, and what is wrong with them."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.holes: dict[str, Hole] = {}
        self.at: dict[int, Hole] = {}
        """Of a node's identity."""
        self.broken: dict[int, Any] = {}
        """Of a malformed hole's identity → a value with which the rest of the recipe can be read, None for a step."""
        self.named: dict[str, Any] = {}
        self.errors: list[tuple[int, int, str]] = []
        self._used: set[str] = set()
        self._spans: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def covers(self, finding: tuple[int, int, str]) -> bool:
        """Whether a finding of the recipe's reader is about what is named here already: a malformed hole, or the same place."""
        place = (finding[0], finding[1])
        return any(place == (line, column) for line, column, _ in self.errors) or any(
            start <= place < end for start, end in self._spans
        )

    def document(self) -> None:
        entries = dict(_entries(self.root))
        self.named = dict(_entries(_entry(entries.get("search"), "holes")))
        labels = {label for label, _ in _entries(entries.get("data"))}
        for name, node in self.named.items():
            if hole_key([key for key, _ in _entries(node)], VALUE_HOLES) is None:
                self._break(node, 1)
                self._error(node, f"the hole '{name}' is neither {{choice: […]}} nor {{range: [low, high]}}")
            elif name in labels:
                self._error(node, f"'{name}' is a label of data already; give the hole another name")
        for label, node in _entries(entries.get("data")):
            self._value(node, label, (), label)
        steps = entries.get("steps")
        self._steps(steps, ())
        first = steps.value[0] if isinstance(steps, yaml.SequenceNode) and steps.value else None
        if _entry(first, "optional") is not None:
            self._error(first, "the first step cannot be optional: nothing stands in its place")
        self._refuse_cycles()
        for name, node in self.named.items():
            if name not in self._used:
                self._error(node, f"the hole '{name}' is used nowhere; write ${name} in the place of a value")

    def _refuse_cycles(self) -> None:
        """A hole that stands for itself, by way of others too, can never be filled."""
        refers = {name: _references(node) & set(self.named) for name, node in self.named.items()}
        for name, node in self.named.items():
            reached, ahead = set[str](), set(refers[name])
            while ahead:
                reached |= ahead
                ahead = set[str]().union(*(refers[each] for each in ahead)) - reached
            if name in reached:
                by = " and ".join(f"'{each}'" for each in sorted(reached - {name}))
                self._error(node, f"the hole '{name}' stands for itself{f' by way of {by}' if by else ''}")
                self._break(node, 1)

    def _error(self, node: Any, message: str) -> None:
        mark = getattr(node, "start_mark", None)
        self.errors.append((mark.line + 1, mark.column + 1, message) if mark else (1, 1, message))

    def _break(self, node: Any, value: Any = None) -> None:
        """Note a malformed hole: what else is wrong with the recipe is read with `value` in its place, and what is said of that is not."""
        self.broken[id(node)] = value
        start, end = node.start_mark, node.end_mark
        self._spans.append(((start.line + 1, start.column + 1), (end.line + 1, end.column + 1)))

    def _add(self, node: Any, hole: Hole) -> Hole:
        known = self.holes.get(hole.name)
        if known is not None:
            number = next(n for n in itertools.count(2) if f"{hole.name}#{n}" not in self.holes)
            hole = _renamed(hole, f"{hole.name}#{number}")
        self.holes[hole.name] = self.at[id(node)] = hole
        return hole

    def _steps(self, node: Any, parents: tuple[tuple[str, Any], ...]) -> None:
        """A list of steps, or one step."""
        for step in cast("list[Any]", node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            self._step(step, parents)

    def _step(self, node: Any, parents: tuple[tuple[str, Any], ...]) -> None:
        entries = dict(_entries(node))
        label = entries.get("as")
        if label is not None and not isinstance(label, yaml.ScalarNode):
            self._error(label, "a hole stands for a value; a label is a name that is written")
        key = hole_key(entries, STEP_HOLES)
        if key is None and "range" in entries and not isinstance(entries["range"], yaml.MappingNode):
            self._error(node, "a range stands for a number; where a step stands, write `- choice: {name: [steps]}`")
            self._break(node)
            return
        name = _step_name(node)
        if key is not None:
            if key == "choice":
                self._choice_of_steps(node, entries, name, parents)
            else:
                self._order(node, entries, name, parents)
            for entry, value in entries.items():
                if entry == "observe":
                    self._value(value, name, parents, "")
                elif entry not in (key, *_STEP_ENTRIES):
                    self._error(
                        value, f"unknown entry '{entry}' beside '{key}' ({nearest(entry, (key, 'as', 'observe'))})"
                    )
            return
        optional = entries.get("optional")
        if optional is not None and not hole_is_field(entries):
            value = _plain(optional)
            if not isinstance(value, bool):
                self._error(optional, f"optional: true or false, got {value!r}"[:200])
            elif value:
                place = (node.start_mark.line + 1, node.start_mark.column + 1)
                hole = Hole(
                    name=f"{name}.kept",
                    kind="optional",
                    options=(True, False),
                    default=True,
                    parents=parents,
                    place=place,
                )
                parents = (*parents, (self._add(node, hole).name, True))
        for entry, value in entries.items():
            if entry == "fork":
                for _, branch in _entries(value):
                    self._steps(branch, parents)
            elif entry not in ("as", "optional"):
                self._value(value, name, parents, entry)

    def _choice_of_steps(
        self, node: Any, entries: dict[str, Any], name: str, parents: tuple[tuple[str, Any], ...]
    ) -> None:
        branches = _entries(entries["choice"])
        if not branches:
            self._error(entries["choice"], "choice: {name: [steps], other: [steps]}, at least one")
            self._break(node)
            return
        hole = Hole(
            name=name,
            kind="choice",
            options=tuple(label for label, _ in branches),
            default=branches[0][0],
            parents=parents,
            place=(node.start_mark.line + 1, node.start_mark.column + 1),
        )
        hole = self._add(node, hole)
        for label, branch in branches:
            self._steps(branch, (*parents, (hole.name, label)))

    def _order(self, node: Any, entries: dict[str, Any], name: str, parents: tuple[tuple[str, Any], ...]) -> None:
        given = entries["any_order"]
        blocks = cast("list[Any]", given.value) if isinstance(given, yaml.SequenceNode) else []
        if len(blocks) < 2 or not all(isinstance(block, yaml.SequenceNode) and block.value for block in blocks):
            self._error(given, "any_order: [[steps], [steps]], at least two lists of steps")
            self._break(node)
            return
        if len(blocks) > _MOST_BLOCKS:
            self._error(given, f"any_order: at most {_MOST_BLOCKS} lists, got {len(blocks)}")
            self._break(node)
            return
        names = tuple(text for text, _ in _orders(given))
        place = (node.start_mark.line + 1, node.start_mark.column + 1)
        self._add(node, Hole(name=name, kind="order", options=names, default=names[0], parents=parents, place=place))
        for block in blocks:
            self._steps(block, parents)

    def _value(self, node: Any, name: str, parents: tuple[tuple[str, Any], ...], owner: str) -> None:
        """A value, or fields, under the key `owner`."""
        text = _text(node)
        if text is not None and text[:1] == "$" and text[1:] in self.named:
            self._used.add(text[1:])
            target = self.named[text[1:]]
            if id(target) not in self.at and id(target) not in self.broken:
                self._value_hole(target, text[1:], (), owner)
            return
        if isinstance(node, yaml.SequenceNode):
            for at, part in enumerate(cast("list[Any]", node.value)):
                self._value(part, name if isinstance(part, yaml.MappingNode) else f"{name}.{at}", parents, "")
            return
        entries = _entries(node)
        if id(node) in self.at or id(node) in self.broken:
            return
        if hole_key([key for key, _ in entries], VALUE_HOLES, owner) is not None:
            self._value_hole(node, name, parents, owner)
            return
        for key, value in entries:
            # A mapping's or a data set's name is no part of a field's path, but in a list, as that of augmentations.
            inside = name if _is_catalogued(key) else f"{name}.{key}"
            self._value(value, inside, parents, key if _is_catalogued(key) else f"{owner}.{key}")

    def _value_hole(self, node: Any, name: str, parents: tuple[tuple[str, Any], ...], owner: str) -> None:
        entries = dict(_entries(node))
        key = "choice" if "choice" in entries else "range"
        wrong = [entry for entry in entries if entry not in _ALLOWED[key]]
        for entry in wrong:
            self._error(
                entries[entry], f"'{entry}' is no entry of a hole with '{key}' ({nearest(entry, _ALLOWED[key])})"
            )
        place = (node.start_mark.line + 1, node.start_mark.column + 1)
        if key == "choice":
            options = _options_of(entries["choice"])
            values = tuple(value for value, _ in options)
            if any(not _is_plain(plain) for plain in map(_plain, (part for _, part in options))):
                self._error(
                    entries["choice"],
                    f"the choice '{name}' has a value that is no plain one (a date, bytes, a set, NaN or infinity); "
                    "write texts in quotes, and numbers that are finite",
                )
                self._break(node, _own_default(owner, 1))
                return
            if not options:
                self._error(entries["choice"], f"the choice '{name}' is empty; write {{choice: [a, b]}}")
                self._break(node, _own_default(owner, 1))
                return
            if len({json.dumps(value, default=str) for value in values}) < len(values):
                self._error(entries["choice"], f"the choice '{name}' has the same value twice")
                self._break(node, _own_default(owner, 1))
                return
            hole: Hole | None = Hole(name=name, kind="choice", options=values, parents=parents, place=place)
        else:
            hole = self._range(entries, name, parents, place)
        if hole is None:
            self._break(node, _own_default(owner, 1))
            return
        hole = self._with_default(hole, entries.get("default"), owner)
        hole = self._add(node, hole)
        if key == "choice":
            for value, option in _options_of(entries["choice"]):
                self._value(option, name, (*parents, (hole.name, value)), "")

    def _range(
        self, entries: dict[str, Any], name: str, parents: tuple[tuple[str, Any], ...], place: tuple[int, int]
    ) -> Hole | None:
        ends, log, step = (
            _numbered(_plain(entries[key])) if key in entries else None for key in ("range", "log", "step")
        )
        problem = None
        if (
            not isinstance(ends, list)
            or len(cast("list[Any]", ends)) != 2
            or not all(map(_is_number, cast("Any", ends)))
        ):
            problem = f"range: [low, high], two numbers of at most ±{_LARGEST:.1g}, got {_short(ends)}"
        elif ends[0] > ends[1]:
            problem = f"range: the low end {ends[0]} is above the high end {ends[1]}"
        elif log is not None and not isinstance(log, bool):
            problem = f"log: true or false, got {log!r}"
        elif log and ends[0] <= 0:
            problem = f"a logarithmic range begins above 0, got {ends[0]}"
        elif step is not None and (not _is_number(step) or step <= 0):
            problem = f"step: a number above 0, got {_short(step)}"
        elif step is not None and log:
            problem = "log and step exclude each other"
        if problem is not None:
            self._error(entries["range"], f"the hole '{name}': {problem}"[:200])
            return None
        low, high = cast("list[Any]", ends)
        whole = all(isinstance(value, int) for value in (low, high, *([] if step is None else [step])))
        return Hole(
            name=name,
            kind="range",
            low=float(low),
            high=float(high),
            log=bool(log),
            step=None if step is None or (whole and step == 1) else float(step),
            whole=whole,
            parents=parents,
            place=place,
        )

    def _with_default(self, hole: Hole, given: Any, owner: str) -> Hole:
        """The hole with its default: the one written, else the field's own where it is in the hole, else the first or the middle."""
        value = hole.options[0] if hole.kind == "choice" else hole.middle
        if given is not None:
            value = _numbered(_plain(given)) if hole.kind == "range" else _plain(given)
            if not hole.contains(value):
                self._error(given, f"the default {value!r} is not in the hole '{hole.name}': {_allowed(hole)}"[:200])
        else:
            own = _own_default(owner)
            value = own if own is not None and hole.contains(own) else value
        return _renamed(hole, hole.name, default=value)


def _short(value: Any) -> str:
    """A value as a message has it; Python refuses to write whole numbers of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}…"


def hole_is_field(entries: Mapping[str, Any]) -> bool:
    """Whether ``optional`` in a step could be meant as the name of a mapping: there is none."""
    return "optional" in discovery.entries("mappings") and len(entries) == 1


def _renamed(hole: Hole, name: str, **changes: Any) -> Hole:
    return dataclasses.replace(hole, name=name, **changes)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _numbered(value: Any) -> Any:
    """A value in which texts as ``1e-4`` are numbers, as in fields: YAML has them for texts, since they have no point."""
    if isinstance(value, list):
        return [_numbered(part) for part in cast("list[Any]", value)]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.I) else value


def _is_plain(value: Any) -> bool:
    """Whether JSON has it: a search keeps what it has tried as JSON."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in cast("dict[Any, Any]", value).items())
    if isinstance(value, list):
        return all(map(_is_plain, cast("list[Any]", value)))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, bool, int))


def _references(node: Any) -> set[str]:
    """What a node refers to by ``$name``, in it and below."""
    if isinstance(node, yaml.ScalarNode):
        return {str(node.value)[1:]} if str(node.value)[:1] == "$" else set()
    parts = [part for _, part in _entries(node)] if isinstance(node, yaml.MappingNode) else node.value
    return set[str]().union(*map(_references, cast("list[Any]", parts)))


def _is_catalogued(name: str) -> bool:
    return any(name in discovery.entries(group) for group in ("mappings", "data", "streams"))


def _field_default(owner: str, name: str) -> Any:
    """The default of a catalogued mapping's or data set's field, where it is a plain value."""
    for group in ("mappings", "data", "streams"):
        if owner in discovery.entries(group):
            info = getattr(discovery.find(group, owner), "__pydantic_fields__", {}).get(name)
            default = getattr(info, "default", None)
            return default if isinstance(default, (bool, int, float, str)) else None
    return None


def _own_default(owner: str, otherwise: Any = None) -> Any:
    """The default of the field that `owner` names, as ``train.supervised.epochs``, where it is a plain value."""
    name, _, field_name = owner.rpartition(".")
    own = _field_default(name, field_name)
    return otherwise if own is None else own


class _Filler:
    """A document with values in the place of its holes; each value stands where its hole stood, so that errors name the place."""

    def __init__(
        self,
        at: Mapping[int, Hole],
        named: Mapping[str, Any],
        suggest: Suggest,
        broken: Mapping[int, Any] | None = None,
    ) -> None:
        self._at, self._named, self._suggest, self._broken = at, named, suggest, broken or {}
        self.holes: Filled = {}
        self.aliases: dict[str, str] = {}
        self.errors: list[tuple[int, int, str]] = []

    def document(self, root: Any) -> Any:
        parts: list[tuple[Any, Any]] = []
        for key, value in cast("list[tuple[Any, Any]]", root.value):
            if key.value == "search":
                continue
            if key.value == "data":
                parts.append((key, self._value(value)))
            elif key.value == "steps" and isinstance(value, yaml.SequenceNode):
                parts.append((key, _sequence(value, self._steps(value))))
            else:
                parts.append((key, value))
        filled = yaml.MappingNode(root.tag, parts, root.start_mark, root.end_mark)
        return self._with_aliases(filled) if self.aliases else filled

    def _taken(self, node: Any) -> Any:
        hole = self._at[id(node)]
        if hole.name not in self.holes:
            self.holes[hole.name] = self._suggest(hole)
        return self.holes[hole.name]

    def _value(self, node: Any) -> Any:
        text = _text(node)
        if text is not None and text[:1] == "$" and text[1:] in self._named:
            return self._value(self._named[text[1:]])
        if isinstance(node, yaml.SequenceNode):
            return _sequence(node, [self._value(part) for part in cast("list[Any]", node.value)])
        if id(node) in self._broken:
            return _scalar(self._broken[id(node)], node)
        if not isinstance(node, yaml.MappingNode):
            return node
        if id(node) in self._at:
            taken = self._taken(node)
            if self._at[id(node)].kind == "range":
                return _scalar(taken, node)
            option = next(part for value, part in _options_of(_entry(node, "choice")) if same(value, taken))
            return self._value(option)
        parts = [(key, self._value(value)) for key, value in cast("list[tuple[Any, Any]]", node.value)]
        return yaml.MappingNode(node.tag, parts, node.start_mark, node.end_mark)

    def _steps(self, node: Any) -> list[Any]:
        steps: list[Any] = []
        for step in cast("list[Any]", node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            hole = self._at.get(id(step))
            if id(step) in self._broken:
                if steps:
                    self._leave_out(step, steps)
            elif hole is None:
                steps.append(self._step(step))
            elif hole.kind == "optional":
                if self._taken(step):
                    steps.append(self._step(step))
                else:
                    self._leave_out(step, steps)
            else:
                taken = self._taken(step)
                inside = self._chosen(step, taken) if hole.kind == "choice" else self._ordered(step, taken)
                if inside:
                    steps += [*inside[:-1], self._labelled(inside[-1], step)]
                else:
                    self._leave_out(step, steps)
        return steps

    def _chosen(self, node: Any, taken: str) -> list[Any]:
        return self._steps(_entry(_entry(node, "choice"), taken))

    def _ordered(self, node: Any, taken: str) -> list[Any]:
        given = _entry(node, "any_order")
        order = next(order for name, order in _orders(given) if name == taken)
        return [step for at in order for step in self._steps(given.value[at])]

    def _step(self, node: Any) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return node
        parts: list[tuple[Any, Any]] = []
        for key, value in cast("list[tuple[Any, Any]]", node.value):
            if key.value == "fork" and isinstance(value, yaml.MappingNode):
                branches = [(label, _sequence(branch, self._steps(branch))) for label, branch in value.value]
                parts.append((key, yaml.MappingNode(value.tag, branches, value.start_mark, value.end_mark)))
            elif key.value not in ("optional", "as"):
                parts.append((key, self._value(value)))
            elif key.value == "as" and isinstance(value, yaml.ScalarNode):
                parts.append((key, value))
        return yaml.MappingNode(node.tag, parts, node.start_mark, node.end_mark)

    def _labelled(self, step: Any, given: Any) -> Any:
        """A step with the label and the reports that a choice or an order gives to the last of its steps."""
        label, reports = (_entry(given, entry) for entry in _STEP_ENTRIES)
        own = _text(_entry(step, "as"))
        if label is not None and own is not None:
            self.aliases[str(label.value)] = own
        elif label is not None:
            step = _with_entry(step, "as", label)
        return step if reports is None else self._observed(step, self._value(reports))

    def _leave_out(self, given: Any, steps: list[Any]) -> None:
        """Hand the label and the reports of what is left out to the step before it."""
        if not steps:
            mark = given.start_mark
            self.errors.append(
                (mark.line + 1, mark.column + 1, "nothing stands before it, so that it cannot be left out")
            )
            return
        name, label = _step_name(given), _entry(given, "as")
        before = steps[-1]
        if label is not None and _entry(before, "as") is None:
            before = _with_entry(before, "as", label)
        elif _step_name(before) != name:
            self.aliases[name] = _step_name(before)
        reports = _entry(given, "observe")
        steps[-1] = before if reports is None else self._observed(before, self._value(reports))

    def _observed(self, step: Any, reports: Any) -> Any:
        there = _entry(step, "observe")
        if there is None:
            return _with_entry(step, "observe", reports)
        names = dict(_entries(there))
        for key, report in cast("list[tuple[Any, Any]]", reports.value):
            if key.value in names and not same(_plain(names[key.value]), _plain(report)):
                mark = key.start_mark
                what = f"where this is left out, '{_step_name(step)}' has another report '{key.value}'; give one of them another name"
                self.errors.append((mark.line + 1, mark.column + 1, what))
        added = [pair for pair in cast("list[tuple[Any, Any]]", reports.value) if pair[0].value not in names]
        merged = yaml.MappingNode(there.tag, [*there.value, *added], there.start_mark, there.end_mark)
        return _with_entry(step, "observe", merged)

    def _with_aliases(self, node: Any) -> Any:
        """The document with references to what was left out turned to what is there."""
        text = _text(node)
        if text is not None and text[:1] == "$" and text[1:] in self.aliases:
            label = text[1:]
            while label in self.aliases:
                label = self.aliases[label]
            return yaml.ScalarNode(node.tag, f"${label}", node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            return _sequence(node, [self._with_aliases(part) for part in cast("list[Any]", node.value)])
        if isinstance(node, yaml.MappingNode):
            parts = [(key, self._with_aliases(value)) for key, value in cast("list[tuple[Any, Any]]", node.value)]
            return yaml.MappingNode(node.tag, parts, node.start_mark, node.end_mark)
        return node


def _sequence(node: Any, parts: list[Any]) -> Any:
    return yaml.SequenceNode("tag:yaml.org,2002:seq", parts, node.start_mark, node.end_mark)


def _scalar(value: Any, node: Any) -> Any:
    kind = {bool: "bool", int: "int", float: "float"}.get(type(value), "str")
    text = str(value).lower() if kind == "bool" else str(value)
    return yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", text, node.start_mark, node.end_mark)


def _with_entry(step: Any, key: str, value: Any) -> Any:
    """A step's node with an entry set."""
    name = yaml.ScalarNode("tag:yaml.org,2002:str", key, value.start_mark, value.end_mark)
    parts = [(k, v) for k, v in cast("list[tuple[Any, Any]]", step.value) if k.value != key]
    return yaml.MappingNode(step.tag, [*parts, (name, value)], step.start_mark, step.end_mark)
