"""The runs that advice stands on: of each task its features, and what each recipe came to on it. Features only, never samples.

A list of runs is one JSON file. It says which features and which spaces of recipes it is of: other ones cannot be mixed with it. A task is
known by a digest of its data's content, so that the same run is counted once however many lists hold it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from mapsto.atomic import new_file
from mapsto.errors import DataError, SpecError, command
from mapsto.search.advisor import features, space
from mapsto.search.advisor.space import Kind

__all__ = ["Outcome", "Runs", "Task", "load", "merged", "parsed", "shipped"]

SCHEMA = 1
_FINITE = pydantic.Field(allow_inf_nan=False)
_LARGEST = 1e30
"""Of a feature; trees take float32."""
_COUNT = pydantic.Field(ge=0, le=2**53)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one recipe came to on one task: percent right, of how many, and what the model takes; or that it failed."""

    test: float | None = None
    """Percent right of examples that decided nothing."""
    test_n: int = 0
    validation: float | None = None
    """Percent right of the examples that a recipe may be chosen by."""
    validation_n: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    error: str = ""
    """Why it failed; empty where it did not."""

    @property
    def failed(self) -> bool:
        return bool(self.error)

    def judged(self, part: Literal["test", "validation"]) -> float:
        """Percent; −inf of a failed run, and the other part where this one is not there."""
        if self.failed:
            return -math.inf
        first, second = (self.test, self.validation) if part == "test" else (self.validation, self.test)
        chosen = second if first is None else first
        return math.nan if chosen is None else chosen


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that is known: its features, and its runs by the recipe's options as one line."""

    id: str
    name: str
    domain: str
    kind: Kind
    features: Mapping[str, float]
    runs: Mapping[str, Outcome] = field(default_factory=dict[str, Outcome])

    def accuracy(self, part: Literal["test", "validation"] = "test") -> NDArray[np.float64]:
        """Percent right of every recipe of the space in its order: NaN where it was not run, −inf where it failed."""
        return np.array([self.runs[key].judged(part) if key in self.runs else math.nan for key in keys(self.kind)])

    def bytes(self) -> NDArray[np.float64]:
        """Of every model; NaN where there is none."""
        found = [self.runs.get(key) for key in keys(self.kind)]
        return np.array([math.nan if run is None or run.failed else float(run.bytes) for run in found])


@dataclass(frozen=True, kw_only=True)
class Runs:
    """All tasks that are known."""

    tasks: tuple[Task, ...] = ()

    def of(self, kind: Kind) -> list[Task]:
        """The tasks of a kind of data."""
        return [task for task in self.tasks if task.kind == kind]

    @property
    def count(self) -> int:
        return sum(len(task.runs) for task in self.tasks)

    def task(self, asked: Task) -> Task:
        """The task of that digest with the runs that are known of it; itself where there is none."""
        return next((each for each in self.tasks if each.id == asked.id), asked)

    def with_run(self, task: Task, key: str, outcome: Outcome) -> Runs:
        """The same and one run more; one of the same task and recipe takes its place."""
        known = {each.id: each for each in self.tasks}
        before = known.get(task.id, task)
        known[task.id] = replace(before, runs={**before.runs, key: outcome})
        return Runs(tasks=tuple(known.values()))

    def dumped(self) -> str:
        """As JSON, one line a task."""
        tasks = [json.dumps(_tree(task), separators=(",", ":"), ensure_ascii=False) for task in self.tasks]
        head = {"schema": SCHEMA, "features": features.VERSION, "space": space.VERSION}
        start = json.dumps(head)[:-1]
        return f'{start}, "tasks": [\n' + ",\n".join(tasks) + "\n]}\n"

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with new_file(path) as file:
            file.write_text(self.dumped(), encoding="utf-8")


def keys(kind: Kind) -> list[str]:
    """Every recipe of a space as one line, in order."""
    if kind not in _KEYS:
        _KEYS[kind] = [space.key_of(holes) for holes in space.recipes(kind)]
    return _KEYS[kind]


_KEYS: dict[str, list[str]] = {}


def shipped() -> Runs:
    """The runs that come with mapsto."""
    path = Path(__file__).with_name("prior.json")
    return load(path) if path.is_file() else Runs()


def load(path: Path) -> Runs:
    """A list of runs. Raises `DataError` where it is none, is not whole, or is of other features or recipes than these."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"it cannot be read ({error})", where=str(path), hint="give a list of runs that was exported"
        ) from error
    return parsed(text, where=str(path))


def parsed(text: str, *, where: str) -> Runs:
    """As `load`, of the text."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"it is not whole JSON ({what})", where=where, hint="copy or export it again") from error
    if not isinstance(tree, dict) or "schema" not in tree or "tasks" not in tree:
        raise DataError("it is no list of runs", where=where, hint="give one that was exported")
    for name, known in (("schema", SCHEMA), ("features", features.VERSION), ("space", space.VERSION)):
        if tree.get(name) != known:
            what = {"schema": "form", "features": "features of tasks", "space": "recipes"}[name]
            raise DataError(
                f"it is of other {what}: {name} {tree.get(name)}, where this mapsto has {known}",
                where=where,
                hint="whoever made it learns from the runs again with this mapsto, and exports: "
                f"`{command('mapsto advise export {file}', file='runs.json')}`",
            )
    try:
        read = _FILE.validate_python(tree["tasks"])
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"tasks.{place}: {first['msg']}", where=where, hint="export it again") from error
    for task in read:
        unknown = set(task.runs) - set(keys(task.kind))
        if unknown:
            raise DataError(f"task {task.id} has a recipe that there is not: '{min(unknown)}'", where=where)
    return merged([Runs(tasks=tuple(read))])


def merged(lists: Iterable[Runs]) -> Runs:
    """All runs of several lists, each once: of two runs of one task and recipe the first is kept."""
    known: dict[str, Task] = {}
    for task in (task for each in lists for task in each.tasks):
        if task.id not in known:
            known[task.id] = task
            continue
        before = known[task.id]
        if before.kind != task.kind:
            raise SpecError(f"task {task.id} is of {before.kind} in one list, and of {task.kind} in another")
        known[task.id] = replace(before, runs={**task.runs, **before.runs})
    return Runs(tasks=tuple(known.values()))


def _tree(task: Task) -> dict[str, Any]:
    runs = {
        key: {name: value for name, value in vars(run).items() if value != _PLAIN[name]}
        for key, run in task.runs.items()
    }
    values = {name: float(f"{value:.6g}") for name, value in task.features.items()}
    own = {"id": task.id, "name": task.name, "domain": task.domain, "kind": task.kind}
    return {**own, "features": values, "runs": runs}


_PLAIN = vars(Outcome())


class _Outcome(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    test: Annotated[float, pydantic.Field(ge=0, le=100)] | None = None
    test_n: Annotated[int, _COUNT] = 0
    validation: Annotated[float, pydantic.Field(ge=0, le=100)] | None = None
    validation_n: Annotated[int, _COUNT] = 0
    bytes: Annotated[int, _COUNT] = 0
    cpu_s: Annotated[float, pydantic.Field(ge=0), _FINITE] = 0.0
    error: str = ""


class _Task(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{16}$")]
    name: str
    domain: str
    kind: Kind
    features: dict[str, Annotated[float, pydantic.Field(ge=-_LARGEST, le=_LARGEST)]]
    runs: dict[str, _Outcome]

    def task(self) -> Task:
        runs = {key: Outcome(**run.model_dump()) for key, run in self.runs.items()}
        return Task(id=self.id, name=self.name, domain=self.domain, kind=self.kind, features=self.features, runs=runs)


class _File:
    """The tasks of a file, checked."""

    def __init__(self) -> None:
        self._adapter = pydantic.TypeAdapter(list[_Task])

    def validate_python(self, tree: Any) -> list[Task]:
        return [each.task() for each in self._adapter.validate_python(tree)]


_FILE = _File()
