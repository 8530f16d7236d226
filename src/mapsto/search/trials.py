"""The trials of a search, as several workers share them: who does which, and what each came to.

`Trials` is what a worker needs of a place where trials are kept; `mapsto.search.trial_file` keeps them in a file of JSON lines,
`mapsto.search.optuna_trials` in one of Optuna's storages.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from mapsto.errors import DataError, SpecError
from mapsto.search.holes import Filled

__all__ = [
    "STALE",
    "Identity",
    "State",
    "Trial",
    "Trials",
    "changed",
    "counted",
    "finished",
    "from_plain",
    "is_dead",
    "me",
]

State: TypeAlias = Literal["waiting", "running", "complete", "failed", "stopped", "lost"]
"""``stopped``: by halving, it may be taken on as another trial; ``lost``: its worker died, and another trial has its place."""
STALE = 60.0
"""Seconds without a sign of life after which a worker of another machine counts as dead."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe that is tried: its holes, and what it came to."""

    number: int
    state: State
    holes: Filled = field(default_factory=dict[str, Any])
    values: tuple[float, ...] = ()
    """Of the objectives."""
    misses: Mapping[str, float] = field(default_factory=dict[str, float])
    """Limit → by how much it is missed, as a share; 0 where it is met."""
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """``stage.report.metric`` → ``{value, unit, low, high}``."""
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    recipe: str = ""
    """Its recipe as YAML."""
    error: str = ""
    steps: int = 0
    hits: int = 0
    """Of its steps, those that the store held already."""
    seconds: float = 0.0
    saved: float = 0.0
    """Seconds that the steps which were hits took when they were computed."""
    started: float = 0.0
    rungs: Mapping[str, float] = field(default_factory=dict[str, float])
    """Rung of halving → the metric there."""
    again: int | None = None
    """The trial that it takes on: one that was lost, or stopped at a rung."""
    role: str = ""
    """Why it was put in the queue, as ``first`` or ``ablation``; empty for one that the sampler chose."""
    worker: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def feasible(self) -> bool:
        """Whether it came to its end and meets all limits."""
        return self.state == "complete" and not any(self.misses.values())

    @property
    def miss(self) -> float:
        """By how much it misses all limits together."""
        return sum(self.misses.values())

    @property
    def counts(self) -> bool:
        """Whether it is one of the trials that the user asked for: another configuration, and no ablation."""
        return self.again is None and self.role != "ablation" and not (self.state == "lost" and not self.holes)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What trials must have in common to be of one search."""

    space: str
    objectives: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, str], ...] = ()
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "space": self.space,
            "objectives": [list(each) for each in self.objectives],
            "limits": [list(each) for each in self.limits],
            "seed": self.seed,
        }

    def require(self, kept: Mapping[str, Any], where: str) -> None:
        """Raises `SpecError` where trials of another search are kept."""
        plain = self.plain()
        other = [name for name in plain if kept.get(name) != plain[name]]
        if other:
            what = {"space": "the recipe or its holes"}.get(other[0], f"its {other[0]}")
            raise SpecError(
                f"the trials kept here are of another search: {what} changed",
                where=where,
                hint="give another --out or --storage for the new search, or undo the change to go on with the old one",
            )


class Trials(ABC):
    """Where the trials of a search are kept. Several processes may use one place at a time."""

    @abstractmethod
    def all(self) -> list[Trial]:
        """Every trial, in the order in which they began."""

    @abstractmethod
    def begin(self, most: int) -> Trial | None:
        """Take a waiting trial, or a new one where fewer than `most` have begun, with its holes; None where there is nothing to do."""

    @abstractmethod
    def enqueue(self, holes: Mapping[str, Any], *, role: str = "first", again: int | None = None) -> None:
        """Put a trial in the queue; holes that are not named are left to the sampler."""

    @abstractmethod
    def note(self, number: int, **changes: Any) -> None:
        """Change fields of a trial that is running, as ``rungs`` or ``worker``."""

    @abstractmethod
    def end(self, number: int, state: State, **changes: Any) -> bool:
        """End a trial; whether it was running: one that has ended already stays as it is."""

    def take_on_lost(self) -> list[Trial]:
        """End the trials of workers that died, and put each in the queue again; gives those."""
        taken: list[Trial] = []
        for trial in self.all():
            # Of two searches that find it, one ends it, and that one puts it in the queue.
            if (
                trial.state == "running"
                and is_dead(trial.worker)
                and self.end(trial.number, "lost", error="its worker died")
            ):
                taken.append(trial)
                if trial.holes:
                    self.enqueue(trial.holes, role=trial.role or "", again=trial.number)
        return taken


def me(number: int = 0) -> dict[str, Any]:
    """This process as a trial's worker."""
    import psutil

    process = psutil.Process(os.getpid())
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "born": process.create_time(),
        "beat": time.time(),
        "n": number,
    }


def is_dead(worker: Mapping[str, Any]) -> bool:
    """Whether a worker no longer works: on this machine by its process, on another by its last sign of life."""
    import psutil

    if not worker:
        return True
    if worker["host"] != socket.gethostname() or "pid" not in worker or "born" not in worker:
        return time.time() - float(worker["beat"]) > STALE
    try:
        return abs(psutil.Process(int(worker["pid"])).create_time() - float(worker["born"])) > 1
    except psutil.NoSuchProcess:
        return True


def finished(trials: Iterable[Trial]) -> list[Trial]:
    """Those that came to an end with values, of each configuration the last."""
    last: dict[str, Trial] = {}
    for trial in trials:
        if trial.state == "complete":
            holes = json.dumps(trial.holes, sort_keys=True)
            last.pop(holes, None)
            last[holes] = trial
    return list(last.values())


def counted(trials: Sequence[Trial]) -> int:
    """How many trials of the user's number have begun."""
    return sum(trial.counts and trial.state != "waiting" for trial in trials)


def changed(trial: Trial) -> dict[str, Any]:
    """The fields of a trial that are not at their default, as JSON has them."""
    plain = dataclasses.asdict(trial)
    default = dataclasses.asdict(Trial(number=0, state="waiting"))
    return {
        name: value for name, value in plain.items() if name not in ("number", "state") and value != default[name]
    } | {"state": trial.state}


def from_plain(plain: Mapping[str, Any]) -> Trial:
    """A trial from fields as JSON has them; what is no field of a trial is passed over.

    Raises `DataError` where a field is not as a search writes it.
    """
    known = {each.name: plain[each.name] for each in dataclasses.fields(Trial) if each.name in plain}
    wrong = next((name for name, value in known.items() if not _FIELDS[name](value)), None)
    wrong = wrong or next((name for name in ("number", "state") if name not in known), None)
    if wrong is not None:
        raise DataError(
            f"trial {plain.get('number', '?')} has no '{wrong}' as a search writes it, but {str(known.get(wrong))[:60]!r}",
            hint="undo what was edited, or give another --storage",
        )
    trial = Trial(**{**known, "values": tuple(plain.get("values", ()))})  # pyright: ignore[reportArgumentType]
    if trial.state == "complete" and not all(map(math.isfinite, trial.values)):
        return dataclasses.replace(trial, state="failed", error=trial.error or "an objective is no finite number")
    return trial


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _has_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, cast("dict[Any, Any]", value).values()))


def _has_metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, dict) and _is_number(cast("dict[str, Any]", each).get("value"))
        for each in cast("dict[Any, Any]", value).values()
    )


def _is_worker(value: Any) -> bool:
    """A process as `me` says it; empty where nobody has begun."""
    if not isinstance(value, dict):
        return False
    worker = cast("dict[str, Any]", value)
    on_host = isinstance(worker.get("host"), str) and _is_number(worker.get("beat"))
    return not worker or (on_host and all(name not in worker or _is_number(worker[name]) for name in ("pid", "born")))


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "number": _is_count,
    "state": lambda value: value in ("waiting", "running", "complete", "failed", "stopped", "lost"),
    "holes": lambda value: isinstance(value, dict),
    "values": lambda value: isinstance(value, (list, tuple)) and all(map(_is_number, cast("Sequence[Any]", value))),
    "misses": _has_numbers,
    "metrics": _has_metrics,
    "aliases": lambda value: isinstance(value, dict),
    "recipe": lambda value: isinstance(value, str),
    "error": lambda value: isinstance(value, str),
    "steps": _is_count,
    "hits": _is_count,
    "seconds": _is_number,
    "saved": _is_number,
    "started": _is_number,
    "rungs": _has_numbers,
    "again": lambda value: value is None or _is_count(value),
    "role": lambda value: isinstance(value, str),
    "worker": _is_worker,
}
"""What each field of a kept trial is checked by: people edit files."""
