"""Results in the folders that the studio was given: runs, searches, and runs that have not come to their end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mapsto.errors import DataError, SpecError
from mapsto.studio.errors import NotThere
from mapsto_runtime.shown import few, short

__all__ = ["Folders", "Kind", "Result"]

Kind: TypeAlias = Literal["run", "search", "unfinished"]
"""``run``: there is a ``report.json``; ``search``: a ``frontier.json``; ``unfinished``: logs alone, or newer than the report."""

_FILES: dict[Kind, str] = {"run": "report.json", "search": "frontier.json"}
_DEEPEST = 5
_MOST_FOLDERS = 5_000
_NOT_RESULTS = frozenset(("logs", "package", "recipes", "store", "node_modules"))


@dataclass(frozen=True, kw_only=True)
class Result:
    """A folder with a result."""

    place: str
    """By which pages name it: the name of the folder that the studio was given, and the path below it."""
    folder: Path
    kind: Kind
    changed: float
    """Seconds of the epoch at which its file was written last."""


class Folders:
    """The folders that the studio shows; nothing outside them is read for a page.

    Parameters
    ----------
    given
        Folders with results in them, at any depth, or folders of results themselves.

    Raises
    ------
    SpecError
        There is no such folder.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        self._roots: dict[str, Path] = {}
        for path in given:
            if not path.is_dir():
                raise SpecError(
                    "there is no such folder",
                    where=str(path),
                    hint="give the folder that runs are in, such as runs, or the --out folder of a run",
                )
            folder = path.resolve()
            name = folder.name or "root"
            while self._roots.get(name, folder) != folder:
                name += "+"
            self._roots[name] = folder

    @property
    def roots(self) -> list[Path]:
        """The folders, each once."""
        return [*self._roots.values()]

    def find(self) -> list[Result]:
        """Every result, the newest first."""
        found = [result for name, root in self._roots.items() for result in _below(name, root)]
        return sorted(found, key=lambda result: (-result.changed, result.place))

    def get(self, place: str, *kinds: Kind) -> Result:
        """The result of a place, of the first of some kinds that is there. Raises `NotThere` where there is none."""
        folder = self.path(place)
        if not folder.is_dir():
            raise NotThere("there is no such folder", where=short(place, 80), hint=self._known())
        found = _kinds(folder)
        for kind in kinds:
            if kind in found:
                return Result(place=place.strip("/"), folder=folder, kind=kind, changed=found[kind])
        lacking = "frontier.json" if kinds == ("search",) else "report.json, and no logs of a run that goes on"
        raise NotThere(
            f"this folder holds no {lacking}",
            where=short(place, 80),
            hint="look at the list of runs; runs, streams and searches write such a folder, their --out",
        )

    def path(self, place: str) -> Path:
        """The file or folder of a place. Raises `NotThere` where it is not within the folders that were given."""
        name, _, rest = place.strip("/").partition("/")
        root = self._roots.get(name)
        if root is None:
            raise NotThere("there is no such folder", where=short(place, 80), hint=self._known())
        try:
            path = (root / rest).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise NotThere(
                f"this is no path of a folder ({error})", where=short(place, 80), hint=self._known()
            ) from error
        if not path.is_relative_to(root):
            raise NotThere("the path leaves the folder that is shown", where=short(place, 80), hint=self._known())
        return path

    def _known(self) -> str:
        return f"shown are results in {few([*self._roots])}"


def _below(name: str, root: Path) -> Iterator[Result]:
    """The results in a folder, and in those below it."""
    waiting = [(root, name, 0)]
    looked = 0
    while waiting and looked < _MOST_FOLDERS:
        folder, place, depth = waiting.pop()
        looked += 1
        kinds = _kinds(folder)
        for kind in ("unfinished", "run"):
            if kind in kinds:
                yield Result(place=place, folder=folder, kind=kind, changed=kinds[kind])
                break
        if "search" in kinds:
            yield Result(place=place, folder=folder, kind="search", changed=kinds["search"])
        if depth == _DEEPEST:
            continue
        try:
            with os.scandir(folder) as entries:
                inner = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
        except OSError:  # what may not be read is not shown; the page of that folder says why
            continue
        seeds = "run" in kinds
        waiting += [
            (folder / each, f"{place}/{each}", depth + 1)
            for each in reversed(inner)
            if each[0] != "." and each not in _NOT_RESULTS and not (seeds and each.startswith("seed-"))
        ]


def _kinds(folder: Path) -> dict[Kind, float]:
    """What a folder holds, each with when it changed."""
    found: dict[Kind, float] = {}
    try:
        for kind, name in _FILES.items():
            path = folder / name
            if path.is_file():
                found[kind] = path.stat().st_mtime
        logged = max((path.stat().st_mtime for path in (folder / "logs").glob("*/metrics.csv")), default=0.0)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(folder), hint="check its rights") from error
    if logged and logged > found.get("run", 0.0):
        found["unfinished"] = logged
    return found
