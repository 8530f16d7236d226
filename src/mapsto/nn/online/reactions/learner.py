"""The live learner that reacts to drift: one learner answers, and others stand by to take its place.

Decisions are made after each `SEGMENT` events, so that blocks of any size come to the same. Of a label that comes late its event is kept,
and what each learner said of it when it was asked.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from mapsto.errors import SpecError
from mapsto.kinds import Block, ColumnType, EventSignature, Network, Package, Task
from mapsto.nn.online.drift.monitor import Monitor
from mapsto.nn.online.head import Head, RowColumn
from mapsto.nn.online.kept_events import KeptEvents, block_of, features_of
from mapsto.nn.online.late_labels import LateLabels
from mapsto.nn.online.learning import Answered, Answers, StreamLearner
from mapsto.nn.online.members import Member, arrays_of, restored, under, values_of
from mapsto.nn.online.onnx_tabular import TabularSnapshot
from mapsto.nn.online.prequential import Record
from mapsto.nn.online.reactions.concepts import SNAPSHOT, Concepts, Stored
from mapsto.nn.online.reactions.distillation import soft_labels
from mapsto.nn.online.reactions.duel import Duel
from mapsto.nn.online.reactions.plain_state import plain_state, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REACTIONS", "SEGMENT", "ReactingLearner"]

SEGMENT = 16
"""Events between two decisions."""
REACTIONS = ("warn", "rate", "reset", "challenge", "distil", "recall")
"""What can be done where a drift is marked."""
_UNIFORM = 0.02
_SWITCH_Z = 2.33
"""Standard deviations by which a challenger has to be better."""


class Settings(NamedTuple):
    """See the fields of `online.react`."""

    reactions: tuple[str, ...]
    detectors: tuple[str, ...]
    factor: float
    window: int
    patience: int
    concepts: int
    seed: int


class ReactingLearner(StreamLearner):
    """A learner that answers, and what reacts to its drifts.

    Parameters
    ----------
    member, challenger
        What answers, and what challenges it.
    types, task
        As of `Online._learner`.
    settings
        What is done, and how.
    most_late
        Questions that are kept for labels that come late.
    categories
        Words of a column that get an input of their own.
    base
        The network that members stand on, where one of them trains it.
    """

    def __init__(
        self,
        member: Member,
        challenger: Member,
        types: Mapping[str, ColumnType],
        task: Task,
        *,
        settings: Settings,
        most_late: int,
        categories: int,
        base: Network | Package | None = None,
    ) -> None:
        self.task = task
        self.aside = {}
        self._specs = {"active": member, "challenger": challenger, "candidate": member}
        self._types, self._settings, self._base = dict(types), settings, base
        self._common = {"late": most_late, "categories": categories}
        self._live: dict[str, StreamLearner] = {"active": self._made(member)}
        """The one that answers; a challenger and a candidate for its place while there are some."""
        if "rate" in settings.reactions and not self._made(member).raise_rate(settings.factor):
            raise SpecError(
                f"{member.learner} has no rate that could be raised",
                where="online.react: reactions",
                hint="leave rate out, or let softmax, mlp or finetune answer",
            )
        if {"challenge", "distil"} & {*settings.reactions}:
            try:
                self._made(challenger)  # so that what it cannot do is said now, and not at the first drift
            except SpecError as error:
                raise SpecError(error.what, where="online.react: challenger", hint=error.hint) from error
        self._of: Member = member
        """What the one that answers is: a challenger may have taken its place."""
        self._generation = {"active": 0, "challenger": 0, "candidate": 0}
        """How often each was another one."""
        self._duels = {"challenger": Duel(), "candidate": Duel()}
        self._monitor = Monitor({"error": settings.detectors}, values=task == "values")
        self._recent = KeptEvents(settings.window)
        self._spread = [0.0, 0.0]
        """Of values: how many, and the mean of the squared errors."""
        self._questions = KeptEvents(most_late)
        self._late = LateLabels(most_late)
        self._classes: dict[str, int] = {}
        self._seen = 0
        self._drifted = 0
        """The event of the last drift that has not been reacted to yet; 0 for none."""
        self._concepts = Concepts(settings.concepts, self._restored)
        self._happened: list[tuple[int, str]] = []

    # -- what the loop asks

    @property
    def _active(self) -> StreamLearner:
        return self._live["active"]

    @property
    def signature(self) -> EventSignature:
        return EventSignature(columns=self._active.signature.columns, classes=tuple(self._classes))

    @property
    def size(self) -> tuple[int, int]:
        return self._active.size[0], len(self._classes)

    @property
    def doubts(self) -> list[str]:
        return self._active.doubts

    def record(self, known: int) -> Record:
        return self._active.record(known)

    def happened(self) -> list[tuple[int, str]]:
        found, self._happened = self._happened, []
        return found

    def importance(self) -> Mapping[str, float]:
        return self._active.importance()

    def head(self) -> tuple[Head, tuple[RowColumn, ...]] | None:
        return self._active.head() if tuple(self._active.signature.classes) == tuple(self._classes) else None

    def snapshot(self) -> tuple[TabularSnapshot, tuple[RowColumn, ...]] | None:
        return self._active.snapshot() if tuple(self._active.signature.classes) == tuple(self._classes) else None

    def network(self) -> Network | None:
        return self._active.network() if tuple(self._active.signature.classes) == tuple(self._classes) else None

    def tables(self) -> list[dict[str, Any]]:
        if "recall" not in self._settings.reactions:
            return []
        return [
            {
                "title": "Concepts, by what was learnt from which event on",
                "columns": ["from event", "concept"],
                "rows": [[event + 1, f"concept {concept}"] for event, concept in self._concepts.history[-100:]],
            }
        ]

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        self._happened = []
        rows: list[NDArray[np.float64]] = [np.zeros(0)] * len(block)
        learnt: list[tuple[int, Any]] = []
        start, count = 0, len(block)
        while start < count:
            stop = min(count, start + SEGMENT - self._seen % SEGMENT)
            part = block if (start, stop) == (0, count) else block.take(start, stop)
            if (part.has_x & part.has_y).all():
                self._take(part, start, rows, learnt)
            else:  # what was asked, and by whom, is known one by one
                for event in range(len(part)):
                    self._take(part.take(event, event + 1), start + event, rows, learnt)
            self._seen += stop - start
            if self._seen % SEGMENT == 0:
                self._decide(stop - 1)
            start = stop
        table = np.zeros((count, 1 if self.task == "values" else len(self._classes)))
        for event, row in enumerate(rows):
            table[event, : len(row)] = row
            if len(row) and np.isnan(row[0]):
                table[event] = np.nan
        if answered is not None and learnt:
            events = np.array([event for event, _ in learnt], np.int64)
            labels = [label if self.task == "values" else self._classes[label] for _, label in learnt]
            kinds = np.float64 if self.task == "values" else np.int64
            answered(Answers(events, np.nan_to_num(table[events]), np.array(labels, kinds)))
        return table

    def predict(self, block: Block) -> NDArray[np.float64]:
        return self._placed("active", self._active.predict(block), len(self._classes))

    # -- learning

    def _take(self, part: Block, start: int, rows: list[NDArray[np.float64]], learnt: list[tuple[int, Any]]) -> None:
        """Learn a part, whose first event is number `start` of its block."""
        asked = {
            event: self._questions.pop(name) if name else None
            for event, name in enumerate(part.ids.tolist())
            if not part.has_x[event] and part.has_y[event]
        }
        scores: dict[str, NDArray[np.float64]] = {}
        labels: dict[int, Any] = {}
        for role, learner in self._live.items():
            given, answers = self._given(part, asked, role), list[Answers]()
            before = dict(learner.aside)
            scores[role] = learner.learn(given, answers.append)
            if role != "active":
                continue
            names = learner.signature.classes
            for each in answers:
                for event, label in zip(each.events.tolist(), each.labels.tolist(), strict=True):
                    labels[event] = label if self.task == "values" else names[label]
            for why, count in learner.aside.items():
                if count > before.get(why, 0):
                    self.aside[why] = self.aside.get(why, 0) + count - before.get(why, 0)
        for event in range(len(part)):
            rows[start + event] = self._see(part, event, start + event, scores, labels.get(event), asked.get(event))
            if event in labels:
                learnt.append((start + event, labels[event]))

    def _given(self, part: Block, asked: Mapping[int, Any], role: str) -> Block:
        """The part as a learner is given it: the one that answers keeps its questions itself, unless another one was asked."""
        whole = {
            event: kept[0]
            for event, kept in asked.items()
            if kept is not None and (role != "active" or kept[1]["generations"]["active"] != self._generation["active"])
        }
        if not whole and role == "active":
            return part
        has_x, x = part.has_x.copy(), dict(part.x)
        for event, features in whole.items():  # the only one of its part
            has_x[event] = True
            x = dict(block_of([features], [None], "classes").x)
        ids = np.full(len(part), "", object) if role != "active" else part.ids
        return dataclasses.replace(part, x=x, has_x=has_x, ids=ids)

    def _see(
        self,
        part: Block,
        event: int,
        place: int,
        scores: Mapping[str, NDArray[np.float64]],
        label: Any,
        asked: tuple[Mapping[str, Any], Any] | None,
    ) -> NDArray[np.float64]:
        """Take in what was said of an event; the answer (classes,) from before its label."""
        known, name = len(self._classes), str(part.ids[event])
        said = {role: self._placed(role, table[event : event + 1], known)[0] for role, table in scores.items()}
        answer, is_asked = said["active"], bool(part.has_x[event])
        losses = said["active"]
        if not is_asked:
            kept = self._late.take(name, 0, len(answer)) if name else None
            answer = np.full(len(answer), np.nan) if kept is None else kept[1]
        elif label is None and name and not bool(part.has_y[event]) and not np.isnan(answer).any():
            self._late.keep(name, np.zeros(0), answer)
            told = {role: self._said(row) for role, row in said.items()}
            kept_said = {"said": told, "generations": dict(self._generation), "row": answer.tolist()}
            self._questions.add(features_of(part, event), cast("Any", kept_said), name)
        if label is None:
            return answer
        if self.task == "classes" and label not in self._classes:
            self._classes[label] = known
        if is_asked:
            errors = {role: self._error(self._said(row), label) for role, row in said.items()}
            features = features_of(part, event)
            self._recent.add(features, label)
        elif asked is not None:
            told, generations = asked[1]["said"], asked[1]["generations"]
            features, losses = asked[0], np.array(asked[1]["row"])
            errors = {
                role: self._error(value, label)
                for role, value in told.items()
                if generations[role] == self._generation[role]
            }
        else:
            return answer
        if self.task == "values" and "active" in errors:
            count, mean = self._spread
            count = min(count + 1.0, 1000.0)
            self._spread = [count, mean + (errors["active"] ** 2 - mean) / count]
        if "active" in errors:
            self._concepts.judge(features, label, self._loss(losses, list(self._classes), label))
        self._judge(errors, place)
        return answer

    def _judge(self, errors: Mapping[str, float], place: int) -> None:
        own = errors.get("active")
        if own is None:
            return
        for role, duel in self._duels.items():
            if role in errors and role in self._live:
                duel.see(own, errors[role])
        nothing = np.array([np.nan])
        for mark in self._monitor.update(self._seen, np.array([own]), nothing, {}):
            self._drifted = self._seen + 1
            if "warn" in self._settings.reactions:
                self._happened.append((place, f"drift: the error rose ({mark.detector})"))

    def _said(self, row: NDArray[np.float64]) -> Any:
        """The answer that scores are: a class's name, None where there is none; or a number."""
        if self.task == "values":
            return float(row[0])
        if not len(row) or not row.max() > 0:
            return None
        return list(self._classes)[int(row.argmax())]

    def _error(self, said: Any, label: Any) -> float:
        if self.task == "values":
            return abs(float(said) - float(label)) if said == said else float(abs(label))  # noqa: PLR0124 - NaN
        return float(said != label)

    def _loss(self, row: NDArray[np.float64], names: Sequence[str], label: Any) -> float:
        """−log of the likelihood that scores give a label; of values by a normal distribution of the usual error."""
        if self.task == "values":
            return (float(row[0]) - float(label)) ** 2 / (2.0 * (self._spread[1] or 1.0))
        at = names.index(label) if label in names else len(row)
        share = float(row[at]) if at < len(row) else 0.0
        return -float(np.log((1.0 - _UNIFORM) * share + _UNIFORM / max(len(self._classes), 2)))

    def _placed(self, role: str, table: NDArray[np.float64], known: int) -> NDArray[np.float64]:
        """Scores in the order of the classes of the whole, of which so many are known."""
        if self.task == "values":
            return table
        names = self._live[role].signature.classes[: table.shape[1]]
        placed = np.zeros((len(table), known))
        for at, name in enumerate(names):
            place = self._classes.get(name)
            if place is not None and place < known:
                placed[:, place] = table[:, at]
        if table.shape[1]:
            placed[np.isnan(table[:, 0])] = np.nan
        return placed

    # -- reacting

    def _decide(self, place: int) -> None:
        """React, after the events of a segment; `place` is the number of its last event in its block."""
        back = self._concepts.back(self.task, self._loss, drifted=bool(self._drifted))
        if back is not None:
            stored = self._concepts.recall(back, self._seen)
            self._replace(self._restored(stored), self._spec_of(stored))
            self._live = {"active": self._active}
            self._happened.append((place, f"concept {back} is back: its learner recalled"))
            self._drifted = 0
        if self._drifted:
            self._react(place)
            self._drifted = 0
        self._settle(place)
        if "recall" in self._settings.reactions and self._seen % SNAPSHOT == 0:
            self._concepts.set_down(self._stored())

    def _react(self, place: int) -> None:
        reactions, window = self._settings.reactions, self._settings.window
        if "recall" in reactions and (new := self._concepts.leave(self._seen)) is not None:
            self._live = {"active": self._active}
            self._happened.append((place, f"concept {new} begins"))
        if "rate" in reactions and self._active.raise_rate(self._settings.factor):
            self._happened.append((place, f"rate raised {self._settings.factor:g} times"))
        if "reset" in reactions:
            how = "head reset" if self._active.reset_head() else "begun anew with the last events"
            if how != "head reset":
                self._replace(self._fresh("active", window), self._of)
            self._happened.append((place, how))
        if {"challenge", "distil"} & {*reactions} and "challenger" not in self._live and "candidate" not in self._live:
            self._enter("challenger", self._fresh("challenger", window))
            self._happened.append((place, f"{self._specs['challenger'].short} challenges it"))

    def _settle(self, place: int) -> None:
        """Bring duels to their end."""
        challenger = self._duels["challenger"]
        if "challenger" in self._live:
            if challenger.is_better(_SWITCH_Z):
                told = f"{challenger.better} to {challenger.worse} where they differed"
                if "distil" in self._settings.reactions:
                    self._enter("candidate", self._distilled())
                    self._happened.append((place, f"challenger distilled: better, {told}"))
                else:
                    self._replace(self._live["challenger"], self._specs["challenger"])
                    self._happened.append((place, f"challenger took over: {told}"))
                del self._live["challenger"]
            elif challenger.events >= self._settings.patience:
                del self._live["challenger"]
                self._happened.append((place, "challenger gave up"))
        candidate = self._duels["candidate"]
        if "candidate" in self._live and candidate.events >= self._settings.window // 2:
            if candidate.better >= candidate.worse:
                self._replace(self._live["candidate"], self._of)
                self._happened.append((place, f"distilled learner accepted: {candidate.better} to {candidate.worse}"))
            else:
                self._happened.append((place, f"distilled learner refused: {candidate.better} to {candidate.worse}"))
            del self._live["candidate"]

    def _enter(self, role: str, learner: StreamLearner) -> None:
        self._live[role], self._duels[role] = learner, Duel()
        self._generation[role] += 1

    def _replace(self, learner: StreamLearner, spec: Member) -> None:
        """Let another one answer from now on."""
        self._live["active"], self._of = learner, spec
        self._generation["active"] += 1
        self._monitor = Monitor({"error": self._settings.detectors}, values=self.task == "values")

    def _made(self, spec: Member) -> StreamLearner:
        return spec.made(self._types, self.task, self._base, common=self._common)

    def _fresh(self, role: str, count: int) -> StreamLearner:
        """A learner at its beginning that has learnt the last events."""
        spec = self._of if role == "active" else self._specs[role]
        learner = self._made(spec)
        events = self._recent.last(count)
        if events:
            learner.learn(block_of([x for x, _ in events], [y for _, y in events], self.task))
        return learner

    def _distilled(self) -> StreamLearner:
        """The learner that answers, as it would be had it learnt of the last events what the challenger says of them."""
        student, teacher = self._restored(self._stored()), self._live["challenger"]
        kept = self._recent.last(self._settings.window)
        events = [x for x, _ in kept]
        scores = teacher.predict(block_of(events, [label for _, label in kept], self.task))
        names, settings = teacher.signature.classes, self._settings
        for labels in soft_labels(scores, names, self.task, seed=settings.seed, event=self._seen):
            student.learn(block_of(events, labels, self.task))
        return student

    def _stored(self) -> Stored:
        values = values_of(self._active, self._of.fingerprint())
        return Stored(self._seen, dict(self._active.arrays()), {**values, "node": self._of.node()})

    def _spec_of(self, stored: Stored) -> Member:
        """Of which of the two members a learner is that was set down."""
        return next(spec for spec in self._specs.values() if spec.node() == stored.values["node"])

    def _restored(self, stored: Stored) -> StreamLearner:
        spec = self._spec_of(stored)
        arrays = {f"it.{name}": array for name, array in stored.arrays.items()}
        return restored(spec, self.task, "it", arrays, stored.values, self._types, self._base, common=self._common)

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            **arrays_of(self._live),
            **{f"recent.{name}": array for name, array in self._recent.arrays().items()},
            **{f"questions.{name}": array for name, array in self._questions.arrays().items()},
            **{f"concepts.{name}": array for name, array in self._concepts.arrays().items()},
            **self._late.arrays(0, 1 if self.task == "values" else len(self._classes)),
        }

    def values(self) -> dict[str, Any]:
        live = {
            role: {**values_of(each, self._spec(role).fingerprint()), "node": self._spec(role).node()}
            for role, each in self._live.items()
        }
        tree: dict[str, Any] = {
            **({"task": self.task} if self.task != "classes" else {}),
            "live": live,
            "generation": dict(self._generation),
            "duels": {role: duel.counts for role, duel in self._duels.items()},
            "monitor": plain_state(self._monitor.snapshot()),
            "recent": self._recent.values(),
            "questions": self._questions.values(),
            "concepts": self._concepts.values(),
            "spread": list(self._spread),
            "seen": [self._seen, self._drifted],
            "late_ids": self._late.ids,
            "given_up": self._late.given_up,
            "aside": dict(self.aside),
        }
        return copy.deepcopy(tree)  # what was set down stays as it was

    def _spec(self, role: str) -> Member:
        return self._of if role in ("active", "candidate") else self._specs[role]

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        values = copy.deepcopy(dict(values))
        live = cast("Mapping[str, Any]", values["live"])
        self._of = next(spec for spec in self._specs.values() if spec.node() == live["active"]["node"])
        self._live = {
            role: restored(
                self._spec(role), self.task, role, arrays, each, self._types, self._base, common=self._common
            )
            for role, each in live.items()
        }
        self._classes = {name: place for place, name in enumerate(signature.classes)}
        if len(self._classes) < len(signature.classes):
            raise ValueError("a class stands there twice")
        self._generation = {role: int(count) for role, count in values["generation"].items()}
        self._duels = {role: Duel(counts) for role, counts in values["duels"].items()}
        self._monitor.restore(state_of(values["monitor"]))
        self._recent.restore(under("recent.", arrays), values["recent"])
        self._questions.restore(under("questions.", arrays), values["questions"])
        for _, _, told in self._questions:
            _require_question(told)
        self._spread = [float(each) for each in values["spread"]]
        self._concepts.restore(under("concepts.", arrays), values["concepts"])
        self._seen, self._drifted = (int(each) for each in values["seen"])
        self._late.restore(values["late_ids"], arrays, int(values["given_up"]))
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}


def _require_question(told: Any) -> None:
    """Raises `ValueError` where what was said of a question is not as it is kept."""
    row = np.array(told["row"], np.float64)
    if row.ndim != 1 or not np.isfinite(row).all() or not {*told["said"]} >= {"active"}:
        raise ValueError("what was said of a question is none")
    if any(not isinstance(each, str | float | None) for each in told["said"].values()):
        raise ValueError("what was said of a question is none")
    if any(not isinstance(each, int) for each in told["generations"].values()):
        raise ValueError("who was asked a question is not known")
