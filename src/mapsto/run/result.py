"""What a run leaves: its steps, its result, and what a listener is told on the way."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from collections.abc import Mapping as AbcMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mapsto.context import Numerics
from mapsto.errors import SpecError, nearest
from mapsto.kinds import Report
from mapsto.recipe.document import Recipe
from mapsto.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Block

__all__ = ["Handle", "Listener", "Published", "RunResult", "StepResult", "path_of", "slug", "summary_of"]


@dataclass(kw_only=True)
class StepResult:
    """One step of a run: what ran, what it came to, and whether it was a hit."""

    id: int
    name: str
    label: str | None
    kind: str = "step"
    """``step`` or ``observe``."""
    of: int | None = None
    """The step that a report is about."""
    inputs: tuple[int, ...] = ()
    """The steps whose results it takes, references included: first those of `values`."""
    values: int = 1
    """How many of its inputs are handed on to it, several by a fork; the others it refers to."""
    fields: Any = None
    key: str = ""
    digest: str = ""
    kind_out: str = ""
    hit: bool = False
    status: str = "planned"
    """``hit``, ``ran``, ``planned``, ``stopped`` before its end, or ``failed``: the choice behind its fork goes on without its branch."""
    branch: tuple[str, ...] = ()
    """The branch of a fork that it is in, of inner forks one label more."""
    seconds: float = 0.0
    measured: dict[str, Any] = field(default_factory=dict[str, Any])
    curves: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    """What the step warned of, now or when it ran."""
    notes: tuple[str, ...] = ()
    comparison: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the network lost, measured: see `mapsto.run.verdict`."""
    account: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its process tells of its work: see `mapsto.process.Live.account`."""
    attached: str = ""
    """The digest of a report with what it shows besides its result; empty for nothing."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a process had come to on its way: an artifact that the store keeps for its run."""

    step: str
    """The path of the step."""
    n: int
    """Items, or events, that it had advanced over."""
    digest: str
    time: float
    """Seconds of the epoch."""


@dataclass(kw_only=True)
class Handle:
    """A value of a run that need not be loaded: its digest, and how to get it."""

    digest: str | None
    kind: str
    steps: tuple[int, ...]
    """The steps that gave it: none for nothing, several for a fork."""
    load: Callable[[], Any]


@dataclass(kw_only=True)
class RunResult:
    """What a run came to."""

    id: str
    recipe: Recipe
    seed: int
    numerics: Numerics
    steps: list[StepResult]
    started: float
    seconds: float
    result: Handle
    store: Store
    leads: bool = True
    """Whether this process is the one of several that writes."""
    published: tuple[Published, ...] = ()
    """Results of processes that had not come to their end."""

    @property
    def reused(self) -> bool:
        """Whether the store held every result."""
        return all(step.hit for step in self.steps if step.status != "failed")

    def value(self) -> Any:
        """The last step's result, loaded."""
        return self.result.load()

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Every warning of the run: the step's path, and the text."""
        return [(path_of(self.steps, step), text) for step in self.steps for text in step.warnings]

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Every note of the run: the step's path, and the text."""
        return [(path_of(self.steps, step), text) for step in self.steps for text in step.notes]

    def report(self, path: str) -> Report:
        """A report by ``stage.report``. Raises `SpecError` with the nearest known."""
        reports = {path_of(self.steps, step): step for step in self.steps if step.kind == "observe"}
        if path not in reports:
            raise SpecError(f"the run has no report '{path}'", hint=nearest(path, reports))
        step = reports[path]
        return self.store.load(step.digest, measured=step.measured)


def path_of(steps: list[StepResult], step: StepResult) -> str:
    """The one name of a step in a run: its label, or its name, as ``train.supervised#2`` for the second of several without.

    For a report ``stage.report``: the path of the step that it is about, and the report's name.
    """
    if step.of is not None:
        return f"{path_of(steps, steps[step.of])}.{step.label}"
    if step.label is not None:
        return step.label
    before = sum(other.name == step.name and other.label is None for other in steps[: step.id] if other.of is None)
    return f"{step.name}#{before + 1}" if before else step.name


class Listener:
    """Hears what a run does; the command line draws it."""

    def started(self, step: StepResult) -> None:
        """A step that was no hit begins."""

    def advanced(self, step: StepResult, done: int, total: int | None, metrics: AbcMapping[str, float]) -> None:
        """A process has advanced to item `done` of `total`."""

    def watched(self, step: StepResult, account: Callable[[], dict[str, Any]]) -> None:
        """A process over a stream is at work, and `account` says what it has come to, at some cost; told many times a second."""

    def logged(self, step: StepResult, n: int, metrics: AbcMapping[str, float]) -> None:
        """A process gave a row for its log; `n` items, or events, had been advanced over."""

    def answered(
        self, step: StepResult, start: int, block: Block, scores: NDArray[np.float64], classes: Sequence[str]
    ) -> None:
        """A learner has answered a block of a stream: see `mapsto.context.Context.answered`."""

    ends_well = False
    """Whether Ctrl-C stops a process as `wants_stop` does, and the run goes on with what it has come to; else it ends the run."""

    def wants_stop(self, step: StepResult) -> bool:
        """Whether the process at work is to stop before its end, after a checkpoint; asked between its items.

        The run goes on with the result so far, which is published under it. The step has no record: the same run goes on from there.
        """
        return False

    def finished(self, step: StepResult) -> None:
        """A step has its result, as a hit or newly computed."""

    def warned(self, step: StepResult, text: str) -> None:
        """A step warns, as it runs or, of a hit, from its record."""

    def noted(self, step: StepResult, text: str) -> None:
        """A step says something that is kept, as it runs or, of a hit, from its record."""

    def note(self, text: str) -> None:
        """Something that the user may want to know; it is not kept."""


def slug(steps: list[StepResult], step: StepResult) -> str:
    """The name of a step's folder among the logs."""
    return f"{step.id + 1:02d}-{path_of(steps, step)}"


def summary_of(run: RunResult) -> dict[str, Any]:
    """What the store keeps of a run."""
    return {
        "id": run.id,
        "name": run.recipe.name,
        "seed": run.seed,
        "started": run.started,
        "seconds": run.seconds,
        "numerics": dataclasses.asdict(run.numerics),
        "python": sys.version.split()[0],
        "steps": [
            {
                "id": step.id,
                "name": step.name,
                "label": step.label,
                "kind": step.kind,
                "of": step.of,
                "inputs": list(step.inputs),
                "key": step.key,
                "digest": step.digest,
                "hit": step.hit,
                "seconds": step.seconds,
            }
            for step in run.steps
        ],
        "published": [dataclasses.asdict(each) for each in run.published],
    }
