"""Finding mappings, data sets, augmentations and edits by walking folders: a file's path is its name.

``mapsto/mappings/prune/taylor.py`` is ``prune.taylor`` and holds one public class, `Taylor`. Listing names and summaries reads
files and imports nothing. Third parties add theirs by entry points in the groups ``mapsto.mappings``, ``mapsto.data``, ``mapsto.streams``,
``mapsto.augment`` and ``mapsto.edits``, whose names are the dotted names (``augment.jitter`` may be ``jitter``) and whose values are
``package.module:Class``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from mapsto.errors import MissingExtra, SpecError, nearest

__all__ = ["FOLDERS", "Entry", "entries", "find", "name_of", "summary"]

FOLDERS = {
    "mappings": "mappings",
    "data": "data/sets",
    "streams": "data/streams",
    "augment": "data/augment",
    "edits": "nn/edits",
}
_PREFIXES = {"augment": "augment."}
"""What the names of a group begin with, where its folder does not say it."""
_NOUNS = {
    "mappings": "mapping",
    "data": "data set",
    "streams": "stream",
    "augment": "augmentation",
    "edits": "edit",
}


class Entry(NamedTuple):
    """Where a named thing lives."""

    name: str
    module: str
    attribute: str | None
    path: Path | None


@cache
def entries(group: str) -> dict[str, Entry]:
    """Every name of a group ('mappings', 'data', 'streams', 'augment' or 'edits') in alphabetical order; imports none of them.

    >>> "prune.taylor" in entries("mappings")
    True
    """
    root = Path(__file__).parent / FOLDERS[group]
    prefix = _PREFIXES.get(group, "")
    found: dict[str, Entry] = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1].startswith("_") or any(part.startswith("_") for part in parts):
            continue
        module = ".".join(("mapsto", *FOLDERS[group].split("/"), *parts))
        name = prefix + ".".join(parts)
        found[name] = Entry(name, module, None, path)
    for point in entry_points(group=f"mapsto.{group}"):
        name = prefix + point.name.removeprefix(prefix)
        if name in found:
            raise SpecError(
                f"the name '{name}' of {point.value} is already taken",
                where=f"entry point mapsto.{group}",
                hint="uninstall or rename it",
            )
        found[name] = Entry(name, point.module, point.attr, None)
    return dict(sorted(found.items()))


@cache
def find(group: str, name: str) -> type[Any]:
    """The class of that name. Raises `SpecError` with the nearest known name."""
    known = entries(group)
    if name not in known:
        raise SpecError(f"unknown {_NOUNS[group]} '{name}'", hint=nearest(name, known))
    entry = known[name]
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] != "mapsto":
            raise MissingExtra(error.name, name.partition(".")[0], where=name) from error
        raise
    if entry.attribute is not None:
        return getattr(module, entry.attribute)
    own = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    public = [cls for cls in own if cls.__name__ in getattr(module, "__all__", [c.__name__ for c in own])]
    if len(public) != 1:
        raise SpecError(
            f"the file of '{name}' holds {len(public)} public classes", where=entry.module, hint="it must hold just one"
        )
    return public[0]


def name_of(cls: type[Any]) -> str:
    """The dotted name of a class that was found, or of one in the package's folders; else its import path."""
    module = cls.__module__
    for group, folder in FOLDERS.items():
        prefix = ".".join(("mapsto", *folder.split("/"))) + "."
        if module.startswith(prefix):
            return _PREFIXES.get(group, "") + module.removeprefix(prefix)
    for group in FOLDERS:
        for entry in entries(group).values():
            if entry.module == module and entry.attribute == cls.__qualname__:
                return entry.name
    return f"{module}:{cls.__qualname__}"


def summary(entry: Entry) -> str:
    """The first sentence of a thing's module docstring, read without importing it."""
    if entry.path is None:
        return f"from {entry.module}"
    text = ast.get_docstring(ast.parse(entry.path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())
