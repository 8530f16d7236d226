"""The one loop of online learning: the fields, the stream, the prequential record, and the model that comes out.

Each event is answered before its label is seen, and learnt after (Gama et al., "On Evaluating Stream Learning Algorithms", 2013). What is
counted for the record lives in the checkpoint, not in the model.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mapsto import discovery
from mapsto.context import Context
from mapsto.errors import DomainError, SpecError, StoreError
from mapsto.kinds import Block, ColumnType, EventSignature, Json, Model, Network, Package, Stream
from mapsto.kinds.canonical import without_defaults
from mapsto.mapping import StreamSource
from mapsto.nn.online.clock import Clock
from mapsto.nn.online.drifts import Drifts
from mapsto.nn.online.gathered import Gathered
from mapsto.nn.online.pace import Pace
from mapsto.process import Live, Process, Rows, State
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.online.learning import Answers, StreamLearner, Task
    from mapsto.nn.online.prequential import Record
    from mapsto.nn.online.rule import Rule

__all__ = ["Online"]

_MOST_COLUMNS = 50
"""So many columns are told of, those that matter most."""
_MOST_MARKS = 200
"""So many of the things that a learner did of itself are kept, the last ones."""


class Online(Process[None | Network | Package | Model, Model]):
    """The fields and the loop of every online learner: from nothing, on a frozen encoder, or from the model of an earlier stream.

    An encoder, a network or a package, makes features of the stream's images, rows or ids. A model keeps the one that it was learnt on.
    """

    stream: StreamSource = Field(description="The events.")
    late: int = Field(default=10_000, ge=0, description="Questions that are kept for labels that come late.")
    categories: int = Field(
        default=1000, ge=1, description="Words of a column that get an input of their own; later ones share one."
    )
    every: int = Field(default=1000, ge=1, description="Events after which a row of the record is written.")
    drift: tuple[str, ...] = Field(
        default=(),
        description="Drift detectors that mark the record, on error, confidence and features: adwin, ddm, kswin, page_hinkley.",
    )

    uses_torch: ClassVar[bool] = False
    tasks: ClassVar[tuple[Task, ...]] = ("classes",)
    """What it can learn."""
    record_fields: ClassVar[tuple[str, ...]] = ("every", "drift")
    """Fields that decide what is recorded, and nothing of what is learnt: a model has none of them."""
    kept_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that a model goes on with: it cannot learn on with others."""
    can_be_member: ClassVar[bool] = True
    """Whether it can be a member of another, which gives it events without a stream."""
    can_be_packaged: ClassVar[bool] = True
    """Whether a package can hold what it has learnt: its events are rows, vectors or what an encoder reads."""
    scaled: ClassVar[bool] = True
    """Whether its rule is given numbers scaled, or as they are."""
    encodes: ClassVar[bool] = True
    """Whether a network that it stands on makes features for it; else that network itself learns, and is asked with raw events."""

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        """The learner's rule by its fields, of which none is missing. A mapping without one makes its learner itself, in `_learner`."""
        raise NotImplementedError(f"{cls.__name__} does not say how it learns")

    @classmethod
    def _learner(cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task) -> StreamLearner:
        """The live learner at its beginning.

        Parameters
        ----------
        fields
            Those that decide what is learnt; none is missing.
        types
            Columns whose type is known before the first event.
        task
            One of `tasks`.
        """
        from mapsto.nn.online.learning import TableLearner

        return TableLearner(
            cls.rule(fields),
            types,
            most_categories=int(fields["categories"]),
            most_late=int(fields["late"]),
            scaled=cls.scaled,
        )

    @classmethod
    def made(
        cls,
        fields: Mapping[str, Json],
        types: Mapping[str, ColumnType],
        task: Task,
        base: Network | Package | None = None,
    ) -> StreamLearner:
        """The live learner by the fields that are not at their default, as a member of another; see `_standing`."""
        return cls._standing(base, cls.completed(fields), types, task)

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        """What an event costs, in microseconds of one core, by a formula: whoever chooses among learners may not look at a clock.

        `fields` as `_learner` takes them; `inputs` and `classes` have been met.
        """
        return 25.0 + 0.003 * inputs * classes

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        """As `_learner`, on a network or a package: behind it, as an encoder, where a mapping does not say otherwise."""
        learner = cls._learner(fields, types, task)
        if base is None:
            return learner
        from mapsto.nn.online.encoder import EncodedLearner, encoder_of

        return EncodedLearner(encoder_of(base, types), learner)

    @classmethod
    def learner_of(cls, model: Model) -> StreamLearner:
        """The live learner of a model, on the network or package that it stands on, where there is one."""
        return cls._restored(model, model.fields, {})

    @classmethod
    def _restored(cls, model: Model, fields: Mapping[str, Json], types: Mapping[str, ColumnType]) -> StreamLearner:
        try:
            learner = cls._standing(model.base, cls.completed(fields), types, _task_of(model))
            learner.restore(model.signature, model.arrays, model.values)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise StoreError(
                f"the model is not as {model.learner} makes it ({type(error).__name__}: {error})"[:300],
                hint="run its stream again, or install the mapsto that made it",
            ) from error
        return learner

    def items(self, value: Network | Package | Model | None, ctx: Context) -> Stream:
        return ctx.resolve(self.stream, Stream)

    def open(self, value: Network | Package | Model | None, state: State | None, ctx: Context) -> Live[Model]:
        stream = ctx.resolve(self.stream, Stream)
        if not stream.labelled:
            raise DomainError(
                "the stream names no target, so that there is nothing to learn", where=self.name, hint="set target"
            )
        if stream.task not in self.tasks:
            kinds = {"classes": "classes", "values": "numbers"}
            raise DomainError(
                f"the stream's labels are {kinds[stream.task]}, but {self.name} learns {kinds[self.tasks[0]]}",
                where=self.name,
                hint=f"learn with {', '.join(learners_of(stream.task)) or 'another learner'}",
            )
        if ctx.numerics.world_size > 1:
            raise DomainError(
                "a stream is read in order, by one process", where=self.name, hint="leave --processes out"
            )
        before = value if isinstance(value, Model) else None
        if before is not None and before.learner != self.name:
            raise DomainError(f"the model is of {before.learner}", where=self.name, hint=f"go on with {before.learner}")
        if before is not None and _task_of(before) != stream.task:
            raise DomainError(
                f"the model has learnt {_task_of(before)}, and the stream's labels are {stream.task}", where=self.name
            )
        if before is not None:
            self._require_kept(before)
        base = value.base if isinstance(value, Model) else value
        if state is None and before is not None:
            learner = self._restored(before, self.own_fields(), stream.columns())
        else:
            learner = self._standing(base, self.completed(self.own_fields()), stream.columns(), stream.task)
        return _Learning(self, learner, state, ctx, before=before, base=base, bounded=stream.bounded)

    def _require_kept(self, before: Model) -> None:
        """Raises `SpecError` where the model has learnt with other fields than it could go on with."""
        own = self.own_fields()
        for name in self.kept_fields:
            if before.fields.get(name) != own.get(name):
                was = "its default" if name not in before.fields else f"{before.fields[name]!r}"
                raise SpecError(
                    f"the model has learnt with another '{name}', {was}"[:300],
                    where=self.name,
                    hint=f"give the same {name}, or begin with a new model",
                )

    @classmethod
    def completed(cls, fields: Mapping[str, Json]) -> dict[str, Any]:
        """Fields of a model, with those that are left out at their default."""
        known: Mapping[str, Any] = cast("Any", cls).__pydantic_fields__
        defaults = {
            name: info.get_default(call_default_factory=True, validated_data={})
            for name, info in known.items()
            if not info.is_required() and name not in cls.record_fields
        }
        return defaults | dict(fields)

    def own_fields(self) -> dict[str, Json]:
        """The fields that decide what is learnt, without those at their default."""
        fields = {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(cast("Any", self))
            if f.name not in ("stream", *self.record_fields)
        }
        return without_defaults(type(self), fields)


def _plain(value: Any) -> Any:
    """A field's value as a model keeps it."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in cast("tuple[Any, ...]", value)]
    node = getattr(value, "node", None)
    return value if node is None else node()


def learners_of(task: Task) -> list[str]:
    """The names of the learners that can learn it."""
    names = [name for name in discovery.entries("mappings") if name.startswith("online.")]
    return [name for name in names if task in getattr(discovery.find("mappings", name), "tasks", ())]


def _task_of(model: Model) -> Task:
    return cast("Task", model.values.get("task", "classes"))


def _largest(importance: Mapping[str, float]) -> list[tuple[str, float]]:
    """The columns that matter most, the first first."""
    return sorted(importance.items(), key=lambda each: (-each[1], each[0]))[:_MOST_COLUMNS]


class _Learning(Live[Model]):
    """A learner at work on its stream."""

    def __init__(
        self,
        mapping: Online,
        learner: StreamLearner,
        state: State | None,
        ctx: Context,
        *,
        before: Model | None,
        base: Network | Package | None,
        bounded: bool,
    ) -> None:
        self._mapping, self._learner, self._ctx, self._base, self._bounded = mapping, learner, ctx, base, bounded
        self._before = 0 if before is None else before.events
        self._aside_before = {} if before is None else dict(cast("dict[str, int]", before.values["aside"]))
        """What earlier streams had that was set aside, by reason."""
        self.total, self.done = None, False
        self.step, self.position = 0, None
        known = 0 if before is None else len(before.signature.classes)
        self._record: Record = learner.record(known)
        self._pace = Pace()
        self._clock = Clock()
        self._drifts = Drifts(mapping.drift, values=learner.task == "values") if mapping.drift else None
        self._met = dict(learner.aside)
        """Events that were set aside when last looked, and on earlier streams, by reason."""
        self._size = (0, 0)
        """Of the learner, when last looked."""
        self._known: tuple[tuple[int, int] | None, tuple[str, ...]] = (None, ())
        """The classes, and the learner's size by then."""
        self._gathered = Gathered(self._count)
        self._marks: list[dict[str, Any]] = []
        """What the learner did of itself, each with its ``event``, counted from 1, and ``what``; the last ones."""
        if state is not None:
            self.step, self.position = int(state["step"]), state["position"]
            self._record.restore(state["record"])
            self._pace.restore(state["pace"])
            self._clock.restore(state["clock"])
            if self._drifts is not None and state["drifts"] is not None:
                self._drifts.restore(state["drifts"])
            learner.restore(EventSignature.from_plain(state["signature"]), state["arrays"], state["values"])
            self._met = dict(learner.aside)
            self._marks = [dict(each) for each in state.get("marks", ())]

    def advance(self, item: Block) -> Rows:
        rows: list[tuple[int, Mapping[str, float]]] = []
        every = self._mapping.every
        backwards = self._clock.check(item.times, self.step)
        if backwards is not None:
            self._ctx.warn(backwards)
        start, count, looked = 0, len(item), False
        while start < count:
            stop = min(count, start + every - self.step % every)
            part = item if (start, stop) == (0, count) else item.take(start, stop)
            answers: list[Answers] = []
            began = time.perf_counter()
            scores = self._learner.learn(part, answers.append)
            self._pace.took(time.perf_counter() - began, stop - start)
            self._ctx.answered(self.step, part, scores, self._classes())
            happened = self._learner.happened()
            looked = looked or bool(happened)
            for event, what in happened:
                self._marks = [*self._marks[1 - _MOST_MARKS :], {"event": self.step + event + 1, "what": what}]
                self._ctx.note(f"event {self.step + event + 1}: {what}")
            self._gathered.add(self.step, part, scores, answers)
            self.step += stop - start
            if self.step % every == 0:
                rows.append((self.step, self._row()))
                self._pace.mark(self.step)
            start = stop
        self.position = item.next
        if self._learner.aside != self._met:
            for reason, met in self._learner.aside.items():
                if met > self._met.get(reason, 0):
                    self._ctx.warn(f"events are set aside and not learnt from: {reason}")  # a text counts once
            self._met = dict(self._learner.aside)
        if looked or self._learner.size != self._size:
            self._size = self._learner.size
            for doubt in self._learner.doubts:
                self._ctx.warn(doubt)
        return rows

    def _count(self, start: int, part: Block, scores: NDArray[np.float64], answers: list[Answers]) -> None:
        """Take the answers to a part of the stream into the record."""
        self._record.asked(part, answers)
        errors = [(each.events, self._record.see(start, part, each, self._classes())) for each in answers]
        if self._drifts is not None:
            self._drifts.see(start, part, scores, errors)

    def _classes(self) -> tuple[str, ...]:
        size = self._learner.size
        if size != self._known[0]:
            self._known = (size, self._learner.signature.classes)
        return self._known[1]

    def _row(self) -> dict[str, float]:
        """The prequential record since the last row, and of all events."""
        self._gathered.flush()
        row = self._record.row()
        row["labels"] = float(self._record.labels)
        if self._learner.task == "classes":
            row["classes"] = float(self._learner.size[1])
        if self._set_aside:
            row["set_aside"] = float(self._set_aside)
        if self._drifts is not None:
            row["drifts"] = float(self._drifts.count)
        return row | {f"share_{name}": share for name, share in self._learner.shares().items()}

    @property
    def _set_aside(self) -> int:
        """Events of this stream that were set aside."""
        return sum(self._learner.aside.values()) - sum(self._aside_before.values())

    def account(self) -> dict[str, Any]:
        self._gathered.flush()
        learner, record = self._learner, self._record
        aside = {reason: count - self._aside_before.get(reason, 0) for reason, count in learner.aside.items()}
        return {
            "task": learner.task,
            "events": self.step,
            "position": self.position,
            "labels": record.labels,
            "late": record.late,
            "blind": record.blind,
            "main": record.main,
            "better": record.better,
            "figures": record.figures(),
            "baselines": record.baselines(),
            "classes": record.classes(learner.signature.classes),
            "shares": dict(learner.shares()),
            "importance": _largest(learner.importance()),
            "marks": [dict(each) for each in self._marks],
            "tables": learner.tables(),
            "stretches": [dict(each) for each in record.stretches.worst],
            "drifts": None if self._drifts is None else list(self._drifts.last),
            "drift_count": 0 if self._drifts is None else self._drifts.count,
            "aside": {reason: count for reason, count in aside.items() if count},
            "measured": self._pace.told(),
        }

    def snapshot(self) -> State:
        self._gathered.flush()
        signature = dataclasses.asdict(self._learner.signature)
        return {
            "step": self.step,
            "position": self.position,
            "record": self._record.snapshot(),
            "pace": self._pace.snapshot(),
            "clock": self._clock.snapshot(),
            "drifts": None if self._drifts is None else self._drifts.snapshot(),
            "signature": signature,
            **({"marks": [dict(each) for each in self._marks]} if self._marks else {}),
            "arrays": self._learner.arrays(),
            "values": self._learner.values(),
        }

    def result(self) -> Model:
        self._gathered.flush()
        if self._bounded:
            self._warn_of_labels()
        return Model(
            learner=self._mapping.name,
            version=type(self._mapping).version,
            fields=self._mapping.own_fields(),
            signature=self._learner.signature,
            arrays=self._learner.arrays(),
            values=self._learner.values(),
            events=self._before + self.step,
            position=self.position,
            base=self._base,
        )

    def _warn_of_labels(self) -> None:
        classes = self._learner.signature.classes
        if not self.step:
            self._ctx.warn("the stream holds no event")
        elif not self._record.labels and self._set_aside == self.step:
            self._ctx.warn(f"of the stream's {self.step} events all were set aside, so that nothing was learnt")
        elif not self._record.labels:
            self._ctx.warn(
                f"of the stream's {self.step} events none had a label to learn from; look at what its target holds"
            )
        elif len(classes) == 1 and self._learner.task == "classes":
            self._ctx.warn(f"all labels are of one class, '{short(classes[0])}': there is nothing to tell apart")
