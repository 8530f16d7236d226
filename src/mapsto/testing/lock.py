"""The lock: a hash of all code that decides a result, so that none changes without a new version.

``locks/`` has a file for each family of mappings, and one for each folder whose files are found by walking it. An entry holds a version,
where the class has one; a hash of the syntax trees, without docstrings, of its file and of what that imports of mapsto's `nn`, `data` and
`native` and of the runtime's preprocessing, factories named in a string included; the plain defaults of its fields, which canonical forms
leave out (`mapsto.kinds.canonical`); and why its code changed since the version did. A new file adds its own entry and changes no other.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import mapsto_runtime
from mapsto import discovery
from mapsto.errors import DataError, SpecError
from mapsto.kinds.canonical import plain_defaults

__all__ = ["check_lock", "files_of", "write_lock"]

FOLDER = "locks"
_ROOT = Path(__file__).parents[1]
_RUNTIME = Path(mapsto_runtime.__file__).parent
_PACKAGES = {"mapsto": _ROOT, "mapsto_runtime": _RUNTIME}
_DECIDES = ("mapsto.nn", "mapsto.data", "mapsto.native", "mapsto_runtime.preprocessing")
_FACTORY = re.compile(r"mapsto\.nn\.networks\.\w+(?=:\w)")
_WALKED = {
    "edits": "nn/edits",
    "factories": "nn/networks",
    "adaptation": "nn/meta/adaptation",
    "updates": "nn/meta/updates",
    "memory": "nn/online/memory",
    "runtimes": "nn/export/runtimes",
    "runners": "nn/export/runners",
    "kernels": "native/csrc",
    "learner_kernels": "native/csrc/online",
    "image_kernels": "native/csrc/images",
    "language_kernels": "native/csrc/language",
}
"""File of the lock → the folder that it covers."""

Entry = dict[str, Any]
"""``{version, hash, defaults, reasons}``; what is empty is left out."""


def entries() -> dict[str, dict[str, Entry]]:
    """File of the lock → name → its entry as the code is now, without reasons."""
    found: dict[str, dict[str, Entry]] = {}
    for group in ("mappings", "data", "streams", "augment"):
        for name, entry in discovery.entries(group).items():
            if entry.path is None:
                continue
            cls = discovery.find(group, name)
            made: Entry = {"version": cls.version, "hash": _hash(entry.path)}
            if defaults := plain_defaults(cls):
                made["defaults"] = dict(sorted(defaults.items()))
            found.setdefault(name.partition(".")[0] if group == "mappings" else group, {})[name] = made
    for title, folder in _WALKED.items():
        for path in sorted((_ROOT / folder).iterdir()):
            if path.suffix in (".py", ".cpp", ".h") and path.stem != "__init__":
                found.setdefault(title, {})[path.name.removesuffix(".py")] = {"hash": _hash(path)}
    return found


def files_of(path: Path) -> set[Path]:
    """A file and the files that it imports, among those that decide results, and those that they import."""
    seen: set[Path] = set()
    pending = {path}
    while pending:
        file = pending.pop()
        seen.add(file)
        pending |= _imported(file) - seen
    return seen


def check_lock() -> list[str]:
    """What the code is otherwise than the lock has it: a line an entry."""
    return [f"{name}: {what}" for _, name, what, _ in _changes(_read(_lock_folder()), entries())]


def write_lock(reason: str) -> list[str]:
    """Rewrite the files of the lock that changed. Gives what `check_lock` did.

    Raises `SpecError` where code has changed without a new version and without a reason, or a default without a new version, which no
    reason excuses: results stored under the old default would be taken for those of the new one.
    """
    folder = _lock_folder()
    before, now = _read(folder), entries()
    changes = list(_changes(before, now))
    hard = [f"{name} ({what})" for _, name, what, kind in changes if kind == "default"]
    if hard:
        raise SpecError(
            f"changed defaults without a new version: {', '.join(hard)}", where="mapsto lock", hint="raise the version"
        )
    same = [(title, name) for title, name, _, kind in changes if kind == "code"]
    if same and not reason.strip():
        raise SpecError(
            f"changed without a new version: {', '.join(name for _, name in same)}",
            where="mapsto lock",
            hint="give --reason, or raise the version",
        )
    for title, found in now.items():
        for name, entry in found.items():
            old = before.get(title, {}).get(name, {})
            reasons = old.get("reasons", []) if old.get("version") == entry.get("version") else []
            if (title, name) in same:
                reasons = [*reasons, reason.strip()]
            if reasons:
                entry["reasons"] = reasons
    folder.mkdir(exist_ok=True)
    for title in before.keys() | now.keys():
        path = folder / f"{title}.json"
        if title not in now:
            path.unlink()
        elif now[title] != before.get(title):
            path.write_text(json.dumps(now[title], indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [f"{name}: {what}" for _, name, what, _ in changes]


def _changes(
    before: Mapping[str, Mapping[str, Entry]], now: Mapping[str, Mapping[str, Entry]]
) -> Iterator[tuple[str, str, str, str]]:
    """(file, name, what has changed, ``new``, ``gone``, ``version``, ``default`` or ``code``) of each entry that differs."""
    for title in sorted(before.keys() | now.keys()):
        locked, found = before.get(title, {}), now.get(title, {})
        for name in sorted(locked.keys() | found.keys()):
            if name not in locked:
                yield title, name, "new, not locked yet", "new"
            elif name not in found:
                yield title, name, "locked, but gone", "gone"
            elif locked[name].get("version") != found[name].get("version"):
                yield title, name, "it has a new version; re-lock it", "version"
            elif fields := _changed_defaults(locked[name], found[name]):
                yield title, name, f"the default of {', '.join(fields)} has changed; raise its version", "default"
            elif locked[name]["hash"] != found[name]["hash"]:
                remedy = (
                    "raise its version, or re-lock with a reason"
                    if "version" in found[name]
                    else "re-lock with a reason"
                )
                yield title, name, f"its code has changed; {remedy}", "code"
            elif locked[name].get("defaults") != found[name].get("defaults"):
                yield title, name, "it has other fields; re-lock it", "new"


def _changed_defaults(locked: Entry, found: Entry) -> list[str]:
    """Fields that both have with a plain default, and another one."""
    old, new = locked.get("defaults", {}), found.get("defaults", {})
    return [name for name in old if name in new and old[name] != new[name]]


def _read(folder: Path) -> dict[str, dict[str, Entry]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def _hash(path: Path) -> str:
    files = sorted(files_of(path))
    text = "\n".join(f"{_title(each)} {_code_hash(each)}" for each in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _title(path: Path) -> str:
    """A file's path in its package, wherever the two packages lie: a hash holds it."""
    if path.is_relative_to(_RUNTIME):
        return f"../mapsto_runtime/{path.relative_to(_RUNTIME).as_posix()}"
    return Path(os.path.relpath(path, _ROOT)).as_posix()


@cache
def _code_hash(path: Path) -> str:
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [
                part
                for part in node.body
                if not (
                    isinstance(part, ast.Expr)
                    and isinstance(part.value, ast.Constant)
                    and isinstance(part.value.value, str)
                )
            ]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def _imported(file: Path) -> frozenset[Path]:
    """Files that a file imports or includes directly, and factories that it names."""
    if file.suffix != ".py":
        included = re.findall(r'#include "([\w.]+)"', file.read_text(encoding="utf-8"))
        return frozenset(path for name in included if (path := file.with_name(name)).is_file())
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(_FACTORY.findall(node.value))
    ours = (name.split(".") for name in names if name.startswith(_DECIDES))
    places = [_PACKAGES[package].joinpath(*parts) for package, *parts in ours]
    targets = [target for place in places for target in (place.with_suffix(".py"), place / "__init__.py")]
    return frozenset(target for target in targets if target.is_file())


def _lock_folder() -> Path:
    path = Path(__file__).resolve().parents[3] / FOLDER
    if not path.parent.joinpath("pyproject.toml").is_file():
        raise DataError("the lock belongs to a checkout", where=str(path), hint="run this inside a clone of mapsto")
    return path
