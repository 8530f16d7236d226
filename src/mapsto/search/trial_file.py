"""Trials in a file of JSON lines: one line for each thing that happens to a trial, appended under a lock, never changed.

    {"format": 1, "identity": {"space": …, "objectives": …}}
    {"trial": 0, "state": "running", "holes": {…}, "worker": {…}}
    {"trial": 0, "state": "complete", "values": [97.2], …}

What a killed process leaves half written is passed over.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock

from mapsto.errors import DataError, SpecError
from mapsto.search.samplers import SAMPLERS
from mapsto.search.space import Space
from mapsto.search.trials import Identity, State, Trial, Trials, changed, counted, from_plain, me

__all__ = ["FORMAT", "TrialFile"]

FORMAT = 1


class TrialFile(Trials):
    """The trials of one search in one file.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    signs
        Of the objectives: what a value is multiplied with to be minimised.

    Raises
    ------
    SpecError
        The file's trials are of another search, or of a later format.
    """

    def __init__(
        self, path: Path, space: Space, identity: Identity, *, sampler: str, signs: Sequence[float], worker: int = 0
    ) -> None:
        self._path, self._space, self._identity = path, space, identity
        self._sample, self._signs, self._worker = SAMPLERS[sampler], tuple(signs), worker
        self._lock = FileLock(f"{path}.lock")
        self._known: dict[int, tuple[str, Trial]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            lines = self._lines()
            if not lines:
                self._append({"format": FORMAT, "identity": identity.plain()})
                return
            head = lines[0]
            if head.get("format") != FORMAT:
                raise SpecError(
                    f"a file of trials in format {head.get('format')!r}, and this mapsto has format {FORMAT}",
                    where=str(path),
                    hint="go on with the mapsto that wrote it, or give another --storage",
                )
            identity.require(cast("dict[str, Any]", head.get("identity") or {}), str(path))

    def all(self) -> list[Trial]:
        fields: dict[int, dict[str, Any]] = {}
        for line in self._lines()[1:]:
            if isinstance(line.get("trial"), int):
                fields.setdefault(line["trial"], {"number": line["trial"]}).update(line)
        return [self._trial(each) for each in fields.values()]

    def begin(self, most: int) -> Trial | None:
        with self._lock:
            trials = self.all()
            waiting = next((trial for trial in trials if trial.state == "waiting"), None)
            if waiting is None and counted(trials) >= most:
                return None
            number = _next(trials) if waiting is None else waiting.number
            rng = np.random.default_rng((self._identity.seed, number))
            suggest = self._sample(self._space.ask, [trial for trial in trials if trial.holes], self._signs, rng)
            if waiting is not None:
                given = waiting.holes
                holes = self._space.ask(
                    lambda hole: (
                        given[hole.name] if hole.name in given and hole.contains(given[hole.name]) else hole.draw(rng)
                    )
                )
            elif suggest is None:
                return None
            else:
                holes = self._space.ask(suggest)
            trial = dataclasses.replace(
                waiting or Trial(number=number, state="running"),
                state="running",
                holes=holes,
                started=time.time(),
                worker=me(self._worker),
            )
            self._append({"trial": number, **changed(trial)})
            return trial

    def enqueue(self, holes: Mapping[str, Any], *, role: str = "first", again: int | None = None) -> None:
        with self._lock:
            self._append(
                {"trial": _next(self.all()), "state": "waiting", "holes": dict(holes), "role": role, "again": again}
            )

    def note(self, number: int, **changes: Any) -> None:
        with self._lock:
            self._append({"trial": number, **changes})

    def end(self, number: int, state: State, **changes: Any) -> bool:
        with self._lock:
            trial = next((trial for trial in self.all() if trial.number == number), None)
            if trial is None or trial.state != "running":
                return False
            self._append({"trial": number, "state": state, **changes})
            return True

    def _trial(self, fields: Mapping[str, Any]) -> Trial:
        """A trial by its lines; what has been checked once is not checked again."""
        key = json.dumps(fields, sort_keys=True)
        trial = self._known.get(int(fields["number"]))
        if trial is None or trial[0] != key:
            try:
                trial = (key, from_plain(fields))
                self._space.check(trial[1].holes)
            except (DataError, SpecError) as error:
                raise DataError(
                    f"trial {fields['number']}: {error.what}",
                    where=str(self._path),
                    hint="undo what was edited, or give another --storage",
                ) from error
            self._known[trial[1].number] = trial
        return trial[1]

    def _lines(self) -> list[dict[str, Any]]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"the trials cannot be read: {error}", where=str(self._path)) from error
        found: list[dict[str, Any]] = []
        for line in content.split(b"\n"):  # `splitlines` would part a line at U+2028 in a text
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue  # half a line of a killed process
            if isinstance(entry, dict):
                found.append(cast("dict[str, Any]", entry))
        if content.strip() and (not found or "format" not in found[0]):
            raise SpecError("this is no file of trials", where=str(self._path), hint="give another --storage")
        return found

    def _append(self, entry: Mapping[str, Any]) -> None:
        if "format" not in entry and not self._path.exists():
            raise DataError(
                "the file of trials went away while a search used it",
                where=str(self._path),
                hint="put it back, or run the same command again: finished steps are in the store",
            )
        with self._path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            torn = False
            if file.tell():
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _next(trials: Sequence[Trial]) -> int:
    """The number of a new trial: lines of others may be gone."""
    return max((trial.number for trial in trials), default=-1) + 1
