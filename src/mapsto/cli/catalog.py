"""``mapsto list``, ``show`` and ``new``: what there is, what its fields are, and a recipe to begin with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mapsto import discovery
from mapsto.errors import DataError, SpecError, command, nearest

if TYPE_CHECKING:
    from mapsto.recipe.document import Recipe
import dataclasses
import textwrap

from mapsto.cli.app import JsonOption, app, print_json, print_text

__all__ = ["describe", "groups", "recipes", "type_of"]


_NOUNS = {"mappings": "mapping", "streams": "stream", "augment": "augmentation"}
"""Group of names → what one of them is called, where that is not the group's name."""


def groups() -> tuple[str, ...]:
    """Groups of names that recipes say; edits are named in stored networks alone."""
    return tuple(group for group in discovery.FOLDERS if group != "edits")


def _noun_of_list(pattern: str) -> str | None:
    """What the names of a whole list are called, where the pattern is such a list's name and not a part of names."""
    nouns = {_title_of(group).lower(): _NOUNS.get(group, group) for group in groups()} | {"recipes": "recipe"}
    return nouns.get(pattern) or _NOUNS.get(pattern) or (pattern if pattern in nouns.values() else None)


def _title_of(group: str) -> str:
    """A group as the heading of its list."""
    return "Augmentations" if group == "augment" else group.capitalize()


@app.command("list")
def list_(
    pattern: Annotated[
        str,
        typer.Argument(
            help="Only names that contain this; or mappings, data, streams, augmentations or recipes for one of these lists."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List mappings, data sets, streams, augmentations and recipes by name.

    Example: mapsto list prune
    """
    whole = _noun_of_list(pattern)
    rows = [
        {"group": noun, "name": entry.name, "summary": discovery.summary(entry)}
        for noun, group in ((_NOUNS.get(group, group), group) for group in groups())
        for entry in discovery.entries(group).values()
        if (whole == noun if whole else pattern in entry.name)
    ]
    rows += [
        {"group": "recipe", "name": name, "summary": text}
        for name, text in recipes().items()
        if (whole == "recipe" if whole else pattern in name)
    ]
    if as_json:
        print_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    columns = _columns()
    titles = {_NOUNS.get(group, group): _title_of(group) for group in groups()} | {"recipe": "Recipes"}
    for noun, title in titles.items():
        part = [row for row in rows if row["group"] == noun]
        if part:
            print_text(f"{title}")
            for row in part:
                print_text(f"  {row['name']:<{width}}  {row['summary']}"[:columns])
    if not rows:
        raise _unknown(pattern)


def _unknown(name: str) -> SpecError:
    """That nothing has this name, with the names that come nearest, and not all that there are."""
    from difflib import get_close_matches

    known = [*(entry for group in groups() for entry in discovery.entries(group)), *recipes()]
    words = {word: each for each in known for word in (each.rpartition(".")[2], each)}
    found = get_close_matches(name, words, n=3) or get_close_matches(name.rpartition(".")[2], words, n=3)
    close = list(dict.fromkeys(words[word] for word in found))
    quoted = " or ".join(f"'{each}'" for each in close)
    return SpecError(
        f"nothing is called '{name}'",
        hint=f"did you mean {quoted}?" if close else f"`{command('mapsto list')}` shows every name",
    )


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 200


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A mapping, a data set, a stream, an augmentation or a shipped recipe.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Of an augmentation: field=value for the sheet; may be repeated.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Of an augmentation: a folder of images or a table of your own for the sheet."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Of an augmentation: the column of the table's classes, by default its last.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Of an augmentation: the PNG file of the sheet, by default in the cache folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a mapping does: its fields with defaults and ranges, what it takes and gives; or a recipe's text.

    The last word of a name is enough where only one has it, as in `mapsto show vgg`. Of an augmentation a sheet of images beside changed
    copies is drawn, or rows of a table are shown before and after.

    Example: mapsto show prune.taylor
    """
    from mapsto.recipe.reader import shipped_recipes

    shipped = shipped_recipes()
    given = {"--set": settings, "--data": data, "--target": target, "--sheet": sheet}
    if name in shipped:
        _refuse_sheet(name, given)
        text = shipped[name].read_text(encoding="utf-8")
        print_json({"name": name, "yaml": text}) if as_json else print_text(text)
        return
    known = {group: _named(name, discovery.entries(group)) for group in groups()}
    matches = [(group, entry) for group, entries in known.items() for entry in entries]
    exact = [match for match in matches if match[1] == name]
    if len(exact or matches) > 1:
        raise SpecError(
            f"'{name}' is the last word of {len(matches)} names",
            hint=f"give one of {', '.join(entry for _, entry in matches)}",
        )
    for group, entry in exact or matches:
        tree = describe(group, entry)
        if group == "augment":
            from mapsto.cli.augment_sheet import made, sheet_of

            operation = made(discovery.find(group, entry), settings or ())
            drawn = sheet_of(operation, data=data, target=target, out=sheet)
            tree |= {**drawn, "text": f"{tree['text']}\n\n{drawn['text']}"}
        else:
            _refuse_sheet(entry, given)
        print_json(tree) if as_json else print_text(tree["text"])
        return
    raise _unknown(name)


def _refuse_sheet(name: str, given: dict[str, Any]) -> None:
    """Raises `SpecError` where options of a sheet are given for what is no augmentation."""
    for option, value in given.items():
        if value:
            raise SpecError(f"{name} is no augmentation, so that no sheet is drawn", where=option, hint="leave it out")


def _named(name: str, known: Iterable[str]) -> list[str]:
    """The names that are `name`, or whose last word is."""
    return [entry for entry in known if name in (entry, entry.rpartition(".")[2])]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new recipe's name; NAME.yaml is written here.")],
    source: Annotated[
        str,
        typer.Option("--from", help="The recipe to start from: a shipped one, a file, or the --out folder of a run."),
    ] = "demo",
    as_json: JsonOption = False,
) -> None:
    """Start a recipe of your own from a shipped one, from a file, or from what a run was made of.

    Example: mapsto new mine --from demo
    """
    from mapsto.recipe.reader import recipe_file, shipped_recipes
    from mapsto.store import write_atomically

    shipped = shipped_recipes()
    origin = shipped.get(source) or Path(source)
    if (origin / "recipe.yaml").is_file():
        origin = origin / "recipe.yaml"
    if not origin.is_file():
        raise SpecError(f"there is no recipe '{source}'", where="--from", hint=nearest(source, shipped))
    text, _ = recipe_file(origin)
    is_space, recipe = _recipe_or_space(text, origin)
    if not Path(name).name:
        raise SpecError("the new recipe needs a name", where="mapsto new", hint=command("mapsto new mine --from demo"))
    target = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if target.exists():
        raise DataError("this file exists already", where=str(target), hint="give another name, or delete it first")
    word = re.fullmatch(r"(?!(?:on|off|yes|no|true|false|null|y|n)$)[A-Za-z_][\w-]*", target.stem, re.IGNORECASE)
    named = f"name: {target.stem if word else json.dumps(target.stem)}"
    lines = [named if line.startswith("name:") else line for line in text.splitlines()]
    write_atomically(target, ("\n".join(lines) + "\n").encode())
    doing, options = "search" if is_space else "run", options_for(recipe, origin)
    again = (
        command("mapsto search {space}", *options, space=target)
        if is_space
        else command("mapsto run {recipe}", *options, recipe=target)
    )
    print_json({"file": str(target), doing: again}) if as_json else print_text(
        f"wrote {target}; {doing} it with: {again}"
    )


def _recipe_or_space(text: str, origin: Path) -> tuple[bool, Recipe]:
    """Whether a recipe has holes, and the recipe itself, with holes at their defaults. Raises `SpecError` with all of its errors."""
    from mapsto.recipe.holes import holes_in
    from mapsto.recipe.reader import load_recipe
    from mapsto.recipe.yaml_text import read_yaml

    tree = read_yaml(text, where=str(origin))[1]
    if not isinstance(tree, dict) or not any(holes_in(cast("dict[str, Any]", tree))):
        return False, load_recipe(origin)
    from mapsto.search.space import parse_space

    return True, parse_space(text, where=str(origin)).at({}).recipe


def options_for(recipe: Recipe, origin: Path) -> list[str]:
    """The options that a recipe is run with again: those of the run that it comes from, else trust in the factories that it names."""
    from mapsto.recipe.writer import factories_in
    from mapsto.report import build as reports

    made = origin.parent / "report.json"
    if origin.name == "recipe.yaml" and made.is_file():
        report = reports.load(made)
        with reports.reading(made):
            return reports.options_again(list(map(str, (report.get("command") or {}).get("options", ()))))
    packages = dict.fromkeys(name.partition(".")[0].partition(":")[0] for name in factories_in(recipe))
    return [word for package in packages if package != "mapsto" for word in ("--trust", package)]


def recipes() -> dict[str, str]:
    """Shipped recipes and their titles, read without a YAML parser."""
    found: dict[str, str] = {}
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")):
        titles = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("title:")]
        found[path.stem] = titles[0].removeprefix("title:").strip().strip("\"'") if titles else ""
    return found


def describe(group: str, name: str) -> dict[str, Any]:
    """A mapping, data set or augmentation: what its module and its class say, what it takes and gives, and its fields.

    ``text`` is the same for people.
    """
    import inspect

    import pydantic

    from mapsto.data.augment import Augmentation
    from mapsto.mapping import Mapping, kind_name
    from mapsto.recipe.writer import node_of

    cls = discovery.find(group, name)
    module_text = (sys.modules[cls.__module__].__doc__ or cls.__doc__ or "").strip()
    schema = pydantic.TypeAdapter(cls).json_schema()
    infos: dict[str, Any] = cast("Any", cls).__pydantic_fields__
    fields: list[dict[str, Any]] = []
    for key, info in infos.items():
        default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            default = dataclasses.asdict(default)
        elif isinstance(default, tuple) and any(
            isinstance(part, Augmentation) for part in cast("tuple[Any, ...]", default)
        ):
            default = node_of(default)
        fields.append(
            {
                "name": key,
                "required": info.is_required(),
                "default": default,
                "schema": schema.get("properties", {}).get(key, {}),
                "description": " ".join((info.description or "").split()),
            }
        )
    tree: dict[str, Any] = {
        "name": name,
        "version": cls.version,
        "doc": module_text,
        "about": inspect.cleandoc(vars(cls).get("__doc__") or ""),
        "class": cls.__name__,
        "fields": fields,
        "schema": schema,
    }
    lines = [name, ""]
    if issubclass(cls, Mapping):
        tree |= {"takes": kind_name(cls.takes), "gives": kind_name(cls.gives)}
        lines = [f"{name}: {kind_name(cls.takes)} → {kind_name(cls.gives)}", ""]
    if issubclass(cls, Augmentation):
        tree |= {"on": list(cls.on), "mixes": cls.mixes}
        lines = [f"{name}: for {' and '.join(cls.on)}{', mixes samples and their targets' if cls.mixes else ''}", ""]
    lines += [textwrap.indent(module_text, "  "), "", "Fields"]
    for entry in fields:
        value = "required" if entry["required"] else f"default {entry['default']!r}"
        lines.append(f"  {entry['name']}  ({type_of(entry['schema'])}, {value})")
        lines += textwrap.wrap(entry["description"], 110, initial_indent="      ", subsequent_indent="      ")
    return tree | {"text": "\n".join(lines)}


def type_of(schema: dict[str, Any]) -> str:
    """A field's type and range in words."""
    if schema.get("x-kind") == "augmentations":
        return "augmentations: [name, name: {fields}]"
    if "x-kind" in schema:
        return f"{schema['x-kind']}: $label or {{name: fields}}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(part) for part in schema["anyOf"]))
    kind = str(schema.get("type", schema.get("$ref", "value").rpartition("/")[2]))
    if kind == "array":
        parts = schema.get("prefixItems") or [schema.get("items") or {"type": "value"}]
        return f"list of {', '.join(dict.fromkeys(map(type_of, parts)))}"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None or high is not None:
        opening = "(" if "exclusiveMinimum" in schema else "["
        closing = ")" if "exclusiveMaximum" in schema else "]"
        kind += f" in {opening}{'-∞' if low is None else low}, {'∞' if high is None else high}{closing}"
    return kind
