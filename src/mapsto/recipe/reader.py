"""Recipes: YAML in, mappings out, and back.

    schema: 1
    name: demo
    seed: 0
    data: {train: {glyphs: {split: train}}}
    steps:
      - networks.vgg: {depth: 16}
      - train.supervised: {data: $train, epochs: 4}
        as: teacher
      - prune.taylor: {data: $train, macs: 0.25}
        observe: {pruned: {evaluate.accuracy: {data: $train}}}
    quick: {teacher.epochs: 1}

All errors of a recipe are reported at once, each with its line and column.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import pydantic
import yaml

from mapsto.data.privacy.settings import Privacy
from mapsto.discovery import name_of
from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Dataset, Frozen, Stream, Tasks
from mapsto.mapping import (
    KINDS,
    LONGEST_LABEL,
    Chain,
    Fork,
    Labelled,
    Observe,
    Of,
    Ref,
    accepts,
    kind_name,
    misfits,
    steps_of,
)
from mapsto.mapping import Mapping as MapstoMapping
from mapsto.recipe.document import LARGEST_SEED, SCHEMA, Recipe
from mapsto.recipe.goals import checked_goal
from mapsto.recipe.holes import holes_in
from mapsto.recipe.nodes import data_from_node, step_from_node
from mapsto.recipe.older_forms import label_of_today, rewritten, setting_of_today
from mapsto.recipe.serving import Scale, Serving, Thresholds
from mapsto.recipe.settings import addresses, listed
from mapsto.recipe.yaml_text import LONGEST, position, read_yaml
from mapsto_runtime.regular_files import open_file
from mapsto_runtime.shown import shown

if TYPE_CHECKING:
    from mapsto.recipe.document import AnyMapping
    from mapsto.recipe.yaml_text import Place

__all__ = ["findings_in", "load_recipe", "marker_in", "parse_recipe", "recipe_file", "recipe_of", "shipped_recipes"]


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with mapsto, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))}


def load_recipe(source: str | Path, *, settings: Mapping[str, Any] | None = None, quick: bool = False) -> Recipe:
    """A recipe from a file or the name of a shipped one.

    `settings` are ``label.field`` → value, as ``--set`` gives them; `quick` applies the recipe's own quick settings first.
    Raises `SpecError` with every error found and where it stands, `DataError` where there is no such file.
    """
    text, name = recipe_file(source)
    return parse_recipe(text, where=str(source), name=name, settings=settings, quick=quick)


def recipe_file(source: str | Path) -> tuple[str, str]:
    """The text and the name of a recipe's file, or of a shipped recipe. Raises `DataError` where there is no such file."""
    path = Path(source)
    shipped = shipped_recipes()
    if str(source) in shipped and not path.is_file():
        path = shipped[str(source)]
    try:
        with open_file(path) as file:
            text = file.read(LONGEST + 1).decode("utf-8")
    except FileNotFoundError:
        raise DataError(
            f"there is no recipe '{source}'", hint=f"give a file, or a shipped recipe: {nearest(str(source), shipped)}"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"this is no recipe: not a text in UTF-8 ({error.reason} at byte {error.start})",
            where=str(path),
            hint="give a YAML file",
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"the recipe cannot be read: {reason}", where=str(path)[:200], hint="give a file") from error
    return text, shown(path.stem)


def parse_recipe(
    text: str,
    *,
    where: str = "recipe",
    name: str = "recipe",
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> Recipe:
    """A recipe from YAML text; see `load_recipe`."""
    root, tree = read_yaml(text, where=where)
    return recipe_of(root, tree, where=where, name=name, settings=settings, quick=quick)


def recipe_of(
    root: Any,
    tree: Any,
    *,
    where: str,
    name: str,
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> Recipe:
    """A recipe from a document's nodes, which say where its parts stand, and its plain values, which are changed; see `load_recipe`."""
    reader = _Reader(where, root)
    recipe = reader.read(tree, name, dict(settings or {}), quick)
    reader.raise_all()
    return recipe


def findings_in(root: Any, tree: Any, *, where: str) -> list[tuple[int, int, str]]:
    """Line, column and text of every error of a document, as `recipe_of` would raise them."""
    reader = _Reader(where, root)
    reader.read(tree, "recipe", {}, quick=False)
    return sorted(set(reader.errors))


class _Target(pydantic.BaseModel):
    """What a run has to show."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    what: str
    metric: str
    goal: Annotated[str, pydantic.AfterValidator(checked_goal)]


class _Document(pydantic.BaseModel):
    """A recipe's entries; what they hold is read by those who know it. A description is what an error says is allowed."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    schema_: int = pydantic.Field(alias="schema", ge=SCHEMA, le=SCHEMA)
    name: str | None = pydantic.Field(
        None, pattern=r"^\w[\w.-]{0,99}$", description="letters, digits, _, . and -, at most 100"
    )
    title: str | None = pydantic.Field(None, description="a text")
    seed: int = pydantic.Field(0, ge=0, le=LARGEST_SEED, description=f"a whole number from 0 to {LARGEST_SEED}")
    data: dict[Any, Any] | None = pydantic.Field(None, description="label → {data set: {fields}}")
    optional: list[str] | None = pydantic.Field(None, description="a list of labels of data")
    steps: list[Any] = pydantic.Field(min_length=1, description="a list of at least one step")
    quick: dict[str, Any] | None = pydantic.Field(None, description="label.field → value")
    targets: list[_Target] | None = pydantic.Field(None, description="a list of {what, metric, goal}")
    serve: Serving | None = pydantic.Field(None, description="how its package is served: {port, workers, …}")
    search: dict[str, Any] | None = pydantic.Field(
        None, description="how its holes are filled: {objectives, trials, …}"
    )


_ENTRIES = {info.alias or name: info for name, info in _Document.model_fields.items()}


class _Reader:
    """Reads one document and gathers its errors with their lines and columns."""

    def __init__(self, where: str, root: Any) -> None:
        self.where = where
        self.root = root
        self.document: Any = None
        self.assigned: dict[tuple[int, str], str] = {}
        """(which dict, which key of it) → what set it, as ``--set teacher.epochs``: its line in the file says something else."""
        self.errors: list[tuple[int, int, str]] = []

    def error(self, place: Place, message: str) -> None:
        """Note an error at a path in the document, or at the nearest part of it that exists."""
        line, column = position(self.root, place)
        origin = self._origin(place)
        self.errors.append((line, column, f"{message}, by {origin}" if origin else message))

    def _origin(self, place: Place) -> str | None:
        """What set the value at a path in the document, where that is not the file."""
        node = self.document
        for part in place:
            if isinstance(node, dict):
                if (id(cast("Any", node)), str(part)) in self.assigned:
                    return self.assigned[id(cast("Any", node)), str(part)]
                node = cast("dict[Any, Any]", node).get(part)
            elif isinstance(node, list) and isinstance(part, int) and part < len(cast("list[Any]", node)):
                node = cast("list[Any]", node)[part]
        return None

    def raise_all(self) -> None:
        """One `SpecError` for all errors, in the order of the document."""
        if not self.errors:
            return
        lines = [f"{self.where}:{line}:{column}: {message}" for line, column, message in sorted(set(self.errors))]
        raise SpecError(lines[0] if len(lines) == 1 else f"{len(lines)} errors\n" + "\n".join(lines))

    def read(self, tree: Any, name: str, settings: dict[str, Any], quick: bool) -> Recipe:
        empty = Recipe(steps=Chain.__new__(Chain))
        if not isinstance(tree, dict):
            self.error((), "a recipe is a mapping with the entries schema, data and steps")
            return empty
        document = self.document = cast("dict[str, Any]", tree)
        self._no_duplicates()
        if not self._is_document(document):
            return empty
        holes = list(holes_in(document))
        for place, what in holes:
            self.error(place, f"{what}, which a search fills; to run the recipe by itself, write one value")
        if holes:
            return empty
        notes = rewritten(document)
        seed: Any = document.get("seed", 0)
        nodes: Any = document["steps"]
        quick_settings = cast("dict[str, Any]", document.get("quick") or {})
        for origin, values in (("quick", quick_settings), ("--set", settings)):
            for target, value in values.items():
                if origin == "quick" and not quick:
                    continue
                if target == "seed":
                    seed = value
                    continue
                problem = self._assign(document, setting_of_today(target), value, f"{origin} {target}")
                if problem:
                    self.error(("quick", target) if origin == "quick" else (), f"{origin} {target}: {problem}")
        if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
            self.error(("seed",), f"seed: a whole number from 0 to {LARGEST_SEED}, got {seed!r}"[:200])
            seed = 0
        data = self._data(document.get("data") or {})
        skipped = self._skip(nodes, data, document.get("data") or {}, document.get("optional") or [])
        steps = self._steps(cast("list[Any]", nodes), data)
        return Recipe(
            steps=steps if steps is not None else empty.steps,
            data=data,
            name=str(document.get("name", name)),
            title=str(document.get("title", "")),
            seed=seed,
            quick=quick_settings,
            targets=tuple(document.get("targets") or ()),
            serve=document.get("serve"),
            skipped=skipped,
            notes=tuple(notes),
        )

    def _assign(self, document: dict[str, Any], target: str, value: Any, origin: str) -> str | None:
        """Set ``label.field`` in a document; gives what is wrong, or None."""
        address, _, path = target.partition(".")
        if not all(target.split(".")):
            return "it is not like label.field"
        places = list(addresses(document))
        known = sorted({name for name, _ in places})
        candidates = sorted((name for name in known if target.startswith(f"{name}.")), key=len)
        if not candidates and target in known:
            return f"name a field of it, as in {target}.field"
        if not candidates:
            asked = target.rpartition(".")[0] if any(name.startswith(f"{address}.") for name in known) else address
            renamed = label_of_today(asked, known)
            remedy = f"it is called '{renamed}' now" if renamed else nearest(asked, known)
            return f"no step or data entry is called '{asked}' ({remedy})"
        name = candidates[-1]
        path = target[len(name) + 1 :]
        nodes = [node for label, node in places if label == name]
        if len(nodes) > 1:
            labels = ", ".join(str(step["as"]) for step, _ in nodes if "as" in step)
            labelled = f"; labelled are {labels}" if labels else ""
            return f"'{name}' names {len(nodes)} steps; give the one you mean a label with `as:`{labelled}"
        holder, key = nodes[0]
        if holder[key] is None:
            holder[key] = {}
        *parents, leaf = path.split(".")
        fields: Any = holder[key]
        whose = name
        try:
            for parent in parents:
                fields = listed(fields, parent)
                if isinstance(fields, dict):
                    fields, whose = cast("dict[str, Any]", fields).setdefault(parent, {}), parent
            fields = listed(fields, leaf)
        except LookupError as error:
            return f"'{whose}' has {error.args[0]}"
        if not isinstance(fields, dict):
            return f"'{whose}' holds no fields"
        fields[leaf] = value
        self.assigned[id(fields), leaf] = origin
        return None

    def _no_duplicates(self) -> None:
        """An entry that is written twice: YAML would keep the last in silence."""
        pending, seen = [self.root], set[int]()
        while pending:
            node = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                pending += node.value
            elif isinstance(node, yaml.MappingNode):
                names: set[str] = set()
                for key, value in cast("list[tuple[Any, Any]]", node.value):
                    pending.append(value)
                    if isinstance(key, yaml.ScalarNode):
                        if key.value in names:
                            mark = key.start_mark
                            self.errors.append((mark.line + 1, mark.column + 1, f"'{key.value}' is written twice"))
                        names.add(key.value)

    def _is_document(self, document: dict[str, Any]) -> bool:
        """Whether its entries can be read on; notes an error for each that is not known or of another type."""
        for key in document:
            if key not in _ENTRIES:
                self.error((key,), f"unknown entry '{key}' ({nearest(str(key), _ENTRIES)})")
        try:
            _Document.model_validate({key: value for key, value in document.items() if key in _ENTRIES})
        except pydantic.ValidationError as error:
            findings = error.errors(include_url=False)
            for finding in findings:
                self.error(*_finding(finding))
            return all(finding["loc"][0] in ("schema", "seed") for finding in findings)
        return True

    def _skip(self, nodes: Any, data: Mapping[str, Any], entries: Any, optional: Any) -> dict[str, str]:
        """Drop the reports that rest, directly or through other entries, on optional data which are not there."""
        missing: dict[str, str] = {}
        for label in cast("list[str]", optional):
            if label not in data:
                self.error(("optional",), f"no data entry is labelled '{label}' ({nearest(str(label), data)})")
            elif data[label] is not None:
                from mapsto.data.io.download import offline

                try:
                    with offline():
                        data[label].fingerprint()
                except DataError as error:
                    missing[label] = str(error)
        for label, entry in cast("dict[str, Any]", entries if isinstance(entries, dict) else {}).items():
            lacking = [other for other in missing if _mentions(entry, other)]
            if lacking:
                missing[label] = missing[lacking[0]]
        skipped: dict[str, str] = {}

        def visit(steps: Any) -> None:
            for node in cast("list[Any]", steps if isinstance(steps, list) else [steps]):
                if not isinstance(node, dict):
                    continue
                step = cast("dict[str, Any]", node)
                reports: Any = step.get("observe")
                for name in list(cast("dict[str, Any]", reports)) if isinstance(reports, dict) else []:
                    lacking = [label for label in missing if _mentions(reports[name], label)]
                    if lacking:
                        stage = step.get("as") or next(iter(step))
                        skipped[f"{stage}.{name}"] = missing[lacking[0]]
                        del reports[name]
                if isinstance(reports, dict) and not reports:
                    del step["observe"]
                if isinstance(step.get("fork"), dict):
                    for branch in cast("dict[str, Any]", step["fork"]).values():
                        visit(branch)

        visit(nodes)
        return skipped

    def _data(self, nodes: Any) -> dict[str, Any]:
        if not isinstance(nodes, dict):
            self.error(("data",), "data: label → {data set: {fields}}")
            return {}
        built: dict[str, Any] = {}
        for label, node in cast("dict[Any, Any]", nodes).items():
            if not isinstance(label, str) or not re.fullmatch(rf"[A-Za-z_]\w{{0,{LONGEST_LABEL - 1}}}", label):
                what = f"a label is letters, digits and _, not first a digit, at most {LONGEST_LABEL}"
                self.error(("data", str(label)), f"{what}; got {label!r}")
                continue
            try:
                built[label] = self._bind(data_from_node(node), dict(built), {}, ("data", label))
            except SpecError as error:
                self._details(
                    ("data", label, *(list(cast("dict[Any, Any]", node)) if isinstance(node, dict) else ())), error
                )
                built[label] = None
        return built

    def _details(self, place: Place, error: SpecError) -> None:
        whole = f"{error.what} ({error.hint})" if error.hint else error.what
        for inner, message in error.details or (((), whole),):
            self.error((*place, *inner), message)

    def _steps(self, nodes: list[Any], data: Mapping[str, Any]) -> AnyMapping | None:
        labels: dict[str, Any] = {}
        chain: list[AnyMapping] = []
        given: Any = type(None)
        broken = False
        for index, node in enumerate(nodes):
            place: Place = ("steps", index)
            try:
                step = step_from_node(node)
            except SpecError as error:
                self._details(place, error)
                broken = True
                labels.update(dict.fromkeys(_written_labels(node), Any))
                continue
            step = self._bind(step, data, labels, place)
            before = next((part.name for part in reversed(chain) if not isinstance(part, Observe)), "")
            for misfit in () if broken else misfits(step, given, before):
                remedy = (
                    "take one of them away, or put a step between them that turns the one into the other"
                    if misfit.before
                    else "begin with a networks.* step"
                )
                inner = misfit.path[1:] if isinstance(step, Chain) else misfit.path
                self.error((*place, *inner), f"these steps do not compose: {misfit.problem}; {remedy}")
                broken = True
            given = step.gives_for(given)
            for label, kind in _labels(step, given):
                if label in labels or label in data:
                    self.error((*place, "as"), f"the label '{label}' is taken already; labels are unique in a recipe")
                labels[label] = kind
            chain.extend(steps_of(step))
        return None if self.errors else (chain[0] if len(chain) == 1 else Chain(steps=tuple(chain)))

    def _bind(self, value: Any, data: Mapping[str, Any], labels: Mapping[str, Any], place: Place) -> Any:
        """`value` with references to data replaced by the data, and references to steps checked for label and kind."""
        given, known = dict(labels), {**data, **labels}

        def walk(node: Any, annotation: Any, path: Place) -> Any:
            if isinstance(node, Ref):
                of = marker_in(annotation)
                if node.label not in known:
                    self.error(
                        path, f"no earlier step or data entry is labelled '{node.label}' ({nearest(node.label, known)})"
                    )
                    return node
                target = known[node.label]
                wanted = KINDS.get(of.kind) if of is not None else None
                kind = target if node.label in given else type(target)
                if wanted is not None and target is not None and not accepts(wanted, kind):
                    self.error(path, f"${node.label} is a {kind_name(kind)}, but a {kind_name(wanted)} is needed here")
                    return node
                return node if node.label in given or target is None else target
            if isinstance(node, Chain):
                return in_order(node, path)
            if isinstance(node, Frozen):
                return rebuilt(node, path)
            if isinstance(node, dict):
                return {k: walk(v, annotation, (*path, k)) for k, v in cast("dict[Any, Any]", node).items()}
            if isinstance(node, tuple):
                return tuple(walk(v, annotation, path) for v in cast("tuple[Any, ...]", node))
            return node

        def in_order(chain: Chain[Any, Any], path: Place) -> Any:
            """The chain of a branch, whose steps may refer to those before them in it."""
            steps: list[Any] = []
            inside: dict[str, Any] = {}
            for step in chain.steps:
                steps.append(walk(step, None, path))
                inside |= {label: kind for label, kind in _labels(steps[-1], Any) if label not in known}
                given.update(inside)
                known.update(inside)
            for label in inside:
                del given[label], known[label]
            return chain if tuple(steps) == chain.steps else dataclasses.replace(chain, steps=tuple(steps))

        def rebuilt(node: Frozen, path: Place) -> Any:
            at = path
            if isinstance(node, (MapstoMapping, Dataset, Tasks, Stream)) and not isinstance(
                node, (Chain, Labelled, Observe, Fork)
            ):
                at = (*path, name_of(type(node)))
            elif isinstance(node, Observe):
                at = (*path, "observe")
            elif isinstance(node, Fork):
                at = (*path, "fork")
            changes: dict[str, Any] = {}
            for f in dataclasses.fields(cast("Any", node)):
                before = getattr(node, f.name)
                structural = isinstance(node, (Chain, Labelled, Observe, Fork))
                after = walk(before, _annotation(type(node), f.name), at if structural else (*at, f.name))
                if after is not before and after != before:
                    changes[f.name] = after
            return dataclasses.replace(cast("Any", node), **changes) if changes else node

        return walk(value, None, place)


def _finding(finding: Any) -> tuple[Place, str]:
    """Where in a document one of pydantic's findings is, and what it says there."""
    place: Place = tuple(finding["loc"])
    entry, value = str(place[0]), finding["input"]
    missing = finding["type"] == "missing"
    if entry == "schema":
        later = type(value) is int and value > SCHEMA
        remedy = "upgrade mapsto" if later else f"write `schema: {SCHEMA}`"
        return place, remedy if missing or value is None else f"schema {value!r} is not known; {remedy}"[:200]
    if finding["type"] == "goal":
        return place, finding["msg"]
    if entry == "targets" and len(place) > 1:
        whole = value if missing or len(place) == 2 else f"{place[2]}: {value!r}"
        return place[:2], f"a target is {{what, metric, goal}}, three texts, got {whole!r}"[:200]
    got = "" if missing else f", got {value!r}"
    if entry == "serve" and len(place) > 1:
        inside = {"alerts": Thresholds, "privacy": Privacy, "scale": Scale}
        inner = inside.get(str(place[1])) if len(place) > 2 else None
        fields = (inner or Serving).model_fields
        end = 2 if inner is None else 3
        if finding["type"] == "value_error" and place[1] == "scale":
            return place[:2], f"{place[1]}: {finding['msg'].removeprefix('Value error, ')}"[:200]
        name, before = str(place[end - 1]), "".join(f"{part}: " for part in place[: end - 1])
        known = fields.get(name)
        if known is None:
            return place[:end], f"{before}unknown entry '{name}' ({nearest(name, fields)})"
        return place[:end], f"{before}{name}: {known.description}{got}"[:200]
    return place, f"{entry}: {_ENTRIES[entry].description}{got}"[:200]


def _written_labels(node: Any) -> Iterator[str]:
    """The labels in the YAML of a step that cannot be built, so that references to them are no errors of their own."""
    if isinstance(node, list):
        for part in cast("list[Any]", node):
            yield from _written_labels(part)
    if not isinstance(node, dict):
        return
    step = cast("dict[str, Any]", node)
    if isinstance(step.get("as"), str):
        yield step["as"]
    if isinstance(step.get("fork"), dict):
        for label, branch in cast("dict[str, Any]", step["fork"]).items():
            yield str(label)
            yield from _written_labels(branch)


def _labels(step: AnyMapping, given: Any) -> Iterator[tuple[str, Any]]:
    """The labels that a step gives, with their kinds."""
    for part in steps_of(step):
        if isinstance(part, Labelled):
            yield part.label, part.gives_for(given)
        if isinstance(part, Fork):
            for label, branch in part.branches.items():
                yield label, branch.gives_for(given)
                yield from _labels(branch, given)


def _annotation(cls: type[Any], name: str) -> Any:
    fields: Mapping[str, Any] = cls.__pydantic_fields__
    info = fields[name]
    return (info.annotation, *info.metadata)


def marker_in(annotation: Any) -> Of | None:
    """The `Of` in an annotation, however deep."""
    if isinstance(annotation, Of):
        return annotation
    parts: Sequence[Any] = annotation if isinstance(annotation, tuple) else get_args(annotation)
    for part in parts:
        if isinstance(part, Of) or (not isinstance(part, str) and part is not annotation):
            marker = marker_in(part)
            if marker is not None:
                return marker
    return None


def _mentions(node: Any, label: str) -> bool:
    """Whether a YAML value refers to a label anywhere."""
    if isinstance(node, dict):
        return any(_mentions(part, label) for part in cast("dict[Any, Any]", node).values())
    if isinstance(node, list):
        return any(_mentions(part, label) for part in cast("list[Any]", node))
    return node == f"${label}"
