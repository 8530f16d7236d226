"""The lock: a hash of each mapping's code and of all code that it imports, so that no result changes without a new version."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from mapsto import discovery
from mapsto.errors import DataError, SpecError

__all__ = ["check_lock", "write_lock"]


LOCK = "mapsto.lock.json"


def lock_hashes() -> dict[str, dict[str, Any]]:
    """Each mapping's version, and a hash of its code and of the nn and data modules it imports, docstrings left out."""
    root = Path(__file__).parents[1]
    found: dict[str, dict[str, Any]] = {}
    for name, entry in discovery.entries("mappings").items():
        if entry.path is None:
            continue
        files = sorted(_closure(entry.path, root))
        text = "\n".join(f"{Path(os.path.relpath(path, root)).as_posix()} {_code_hash(path)}" for path in files)
        found[name] = {
            "version": discovery.find("mappings", name).version,
            "hash": hashlib.sha256(text.encode()).hexdigest(),
        }
    return found


@cache
def _code_hash(path: Path) -> str:
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


def _closure(path: Path, root: Path) -> set[Path]:
    """The file and those of ``mapsto.nn``, ``mapsto.data`` and the runtime's preprocessing that it imports, and those that they import."""
    seen: set[Path] = set()
    pending = {path}
    while pending:
        file = pending.pop()
        seen.add(file)
        pending |= _imported(file, root) - seen
    return seen


@cache
def _imported(file: Path, root: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = (
        name
        for name in names
        if name.startswith(("mapsto.nn", "mapsto.data", "mapsto.native", "mapsto_runtime.preprocessing"))
    )
    targets = (root.parent.joinpath(*name.split(".")).with_suffix(".py") for name in ours)
    return frozenset(target for target in targets if target.is_file())


def _lock_path() -> Path:
    path = Path(__file__).resolve().parents[3] / LOCK
    if not path.parent.joinpath("pyproject.toml").is_file():
        raise DataError(
            "the lock file belongs to a checkout", where=str(path), hint="run this inside a clone of mapsto"
        )
    return path


def check_lock() -> list[str]:
    """Mappings whose code has changed although their version has not; new ones too."""
    path = _lock_path()
    locked = json.loads(path.read_text(encoding="utf-8"))["mappings"] if path.exists() else {}
    changed: list[str] = []
    for name, now in lock_hashes().items():
        before = locked.get(name)
        if before is None:
            changed.append(f"{name}: new, not locked yet")
        elif before["hash"] != now["hash"]:
            hint = (
                "re-lock it" if before["version"] != now["version"] else "raise its version, or re-lock with a reason"
            )
            changed.append(f"{name}: its code has changed; {hint}")
    return changed + [f"{name}: locked, but gone" for name in locked if name not in discovery.entries("mappings")]


def write_lock(reason: str) -> list[str]:
    """Rewrite the lock file; a change without a new version needs a reason, which is kept in the file."""
    changed = check_lock()
    if not changed:
        return []
    path = _lock_path()
    now = lock_hashes()
    tree = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"mappings": {}, "reasons": {}}
    same_version = [
        name
        for name, entry in now.items()
        if name in tree["mappings"]
        and tree["mappings"][name]["hash"] != entry["hash"]
        and tree["mappings"][name]["version"] == entry["version"]
    ]
    if same_version and not reason.strip():
        raise SpecError(
            f"changed without a new version: {', '.join(same_version)}",
            where="mapsto lock",
            hint="give --reason, or raise the version",
        )
    tree["mappings"] = now
    if same_version:
        tree["reasons"] = dict.fromkeys(same_version, reason.strip())
    path.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return changed
