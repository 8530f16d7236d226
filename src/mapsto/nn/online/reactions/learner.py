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

from mapsto.kinds import Block, ColumnType, EventSignature, Network, Package, Task
from mapsto.nn.online.draws import number_below
from mapsto.nn.online.drift.monitor import Monitor
from mapsto.nn.online.head import Head, RowColumn
from mapsto.nn.online.late_labels import LateLabels
from mapsto.nn.online.learning import Answered, Answers, StreamLearner
from mapsto.nn.online.members import Member, arrays_of, restored, values_of
from mapsto.nn.online.onnx_tabular import TabularSnapshot
from mapsto.nn.online.prequential import Record
from mapsto.nn.online.reactions.duel import Duel
from mapsto.nn.online.reactions.kept_events import KeptEvents, block_of, features_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REACTIONS", "SEGMENT", "ReactingLearner"]

SEGMENT = 16
"""Events between two decisions."""
REACTIONS = ("warn", "rate", "reset", "challenge", "distil", "recall")
"""What can be done where a drift is marked."""
_SNAPSHOT = 256
"""Events after which the learner is set down, so that there is one of before a drift."""
_SNAPSHOTS = 3
_BEFORE = 64
"""Events before a return is seen whose learner may have met the other concept already."""
_RECALLED_AT, _RECALLED_AT_A_DRIFT = 6.0, 3.0
"""At which sum of gains, each the logarithm of a ratio of likelihoods, a kept learner is recalled; at a marked drift less will do."""
_MOST_GAIN = 2.0
_UNIFORM = 0.02
_SWITCH_Z = 2.33
"""Standard deviations by which a challenger has to be better."""
_DISTILLED_PASSES = 3


class Settings(NamedTuple):
    """See the fields of `online.react`."""

    reactions: tuple[str, ...]
    detectors: tuple[str, ...]
    factor: float
    window: int
    patience: int
    concepts: int
    seed: int


class _Stored(NamedTuple):
    """A learner at an event, set down."""

    event: int
    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]


class _Concept:
    """What was learnt of a concept."""

    def __init__(self, stored: _Stored, learner: StreamLearner, gain: float = 0.0) -> None:
        self.stored, self.learner, self.gain = stored, learner, gain
        """`gain`: how much better than the one that answers it has been lately, from 0 on (Page's cumulative sum)."""


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
        base: Network | Package | None = None,
    ) -> None:
        self.task = task
        self.aside = {}
        self._specs = {"active": member, "challenger": challenger, "candidate": member}
        self._types, self._settings, self._base = dict(types), settings, base
        self._live: dict[str, StreamLearner] = {"active": member.made(types, task, base)}
        """The one that answers; a challenger and a candidate for its place while there are some."""
        self._of: Member = member
        """What the one that answers is: a challenger may have taken its place."""
        self._generation = {"active": 0, "challenger": 0, "candidate": 0}
        """How often each was another one."""
        self._duels = {"challenger": Duel(), "candidate": Duel()}
        self._monitor = Monitor({"error": settings.detectors}, values=task == "values")
        self._recent = KeptEvents(settings.window)
        self._judged = KeptEvents(4 * SEGMENT)
        """Events with a label since the last decision, each with its label and the loss of the answer."""
        self._spread = [0.0, 0.0]
        """Of values: how many, and the mean of the squared errors."""
        self._questions = KeptEvents(most_late)
        self._late = LateLabels(most_late)
        self._classes: dict[str, int] = {}
        self._seen = 0
        self._drifted = 0
        """The event of the last drift that has not been reacted to yet; 0 for none."""
        self._snapshots: list[_Stored] = []
        self._concepts: dict[int, _Concept] = {}
        """By their numbers, the one that was left last at the end."""
        self._concept, self._named = 1, 1
        """The number of the concept at present, and the largest one so far."""
        self._recalled = 0
        self._history: list[list[int]] = [[0, 1]]
        """From which event on which concept was learnt."""
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
                "rows": [[event + 1, f"concept {concept}"] for event, concept in self._history[-100:]],
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
            self._take(part, start, rows, learnt)
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
        x = {name: column.copy() for name, column in part.x.items()}
        has_x = part.has_x.copy()
        for event, features in whole.items():
            if not {*features} <= {*x}:
                continue
            has_x[event] = True
            for name, value in features.items():
                x[name][event] = value
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
        if self._concepts and "active" in errors:
            self._judged.add(features, [label, self._loss(losses, list(self._classes), label)])
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
        reactions = self._settings.reactions
        if self._concepts and self._recall(place):
            self._drifted = 0
        if self._drifted:
            self._react(place)
            self._drifted = 0
        self._settle(place)
        if "recall" in reactions and self._seen % _SNAPSHOT == 0:
            self._snapshots = [*self._snapshots[1 - _SNAPSHOTS :], self._stored()]

    def _react(self, place: int) -> None:
        reactions, window = self._settings.reactions, self._settings.window
        if "recall" in reactions:
            self._set_down(place)
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

    def _fresh(self, role: str, count: int) -> StreamLearner:
        """A learner at its beginning that has learnt the last events."""
        spec = self._of if role == "active" else self._specs[role]
        learner = spec.made(self._types, self.task, self._base)
        events = self._recent.last(count)
        if events:
            learner.learn(block_of([x for x, _ in events], [y for _, y in events], self.task))
        return learner

    def _distilled(self) -> StreamLearner:
        """The learner that answers, as it would be had it learnt of the last events what the challenger says of them.

        Its labels are drawn by the challenger's probabilities, anew in each pass: the expected gradient is that of distillation with soft
        labels.
        """
        spec = self._of
        student = self._restored(self._stored(), spec)
        events = [x for x, _ in self._recent.last(self._settings.window)]
        labels = [y for _, y in self._recent.last(self._settings.window)]
        teacher = self._live["challenger"]
        scores, names = teacher.predict(block_of(events, labels, self.task)), teacher.signature.classes
        for each in range(_DISTILLED_PASSES):
            drawn: list[Any] = []
            for place, row in enumerate(scores):
                if self.task == "values":
                    drawn.append(float(row[0]))
                    continue
                at = number_below(2**53, self._settings.seed, self._seen * _DISTILLED_PASSES + each * 2**40 + place)
                shares = np.cumsum(np.nan_to_num(row))
                drawn.append(names[min(int((shares <= at * 2.0**-53 * shares[-1]).sum()), len(names) - 1)])
            student.learn(block_of(events, drawn, self.task))
        return student

    # -- concepts

    def _recall(self, place: int) -> bool:
        """Let the learner of an earlier concept take over where it has been better lately; whether one has."""
        judged = self._judged.last(len(self._judged))
        self._judged = KeptEvents(4 * SEGMENT)
        if not judged:
            return False
        told = [cast("list[Any]", value) for _, value in judged]
        block = block_of([x for x, _ in judged], [label for label, _ in told], self.task)
        for number, concept in self._concepts.items():
            if number == self._concept:
                continue
            scores, names = concept.learner.predict(block), concept.learner.signature.classes
            for row, (label, own) in zip(scores, told, strict=True):
                gain = own - self._loss(row, names, label)
                concept.gain = max(0.0, concept.gain + max(-_MOST_GAIN, min(_MOST_GAIN, gain)))
        number = max(self._concepts, key=lambda each: self._concepts[each].gain)
        found = self._concepts[number]
        if found.gain < (_RECALLED_AT_A_DRIFT if self._drifted else _RECALLED_AT):
            return False
        self._put_away(self._seen - _BEFORE)
        self._replace(self._restored(found.stored, self._spec_of(found.stored)), self._spec_of(found.stored))
        self._concept, self._recalled = number, self._recalled + 1
        self._begin_concept()
        self._happened.append((place, f"concept {number} is back: its learner recalled"))
        return True

    def _begin_concept(self) -> None:
        self._history.append([self._seen, self._concept])
        self._snapshots = []
        self._live = {"active": self._active}
        for concept in self._concepts.values():
            concept.gain = 0.0

    def _set_down(self, place: int) -> None:
        """A drift to something that is none of the concepts that are known: what was learnt before it becomes one."""
        if not self._put_away(self._seen - _BEFORE):
            return
        self._named += 1
        self._concept = self._named
        self._begin_concept()
        self._happened.append((place, f"concept {self._named} begins"))

    def _put_away(self, event: int) -> bool:
        """Keep the learner of the present concept as it was at an event; False where it was not set down by then."""
        found = next((each for each in reversed(self._snapshots) if each.event <= event), None)
        if found is None:
            return self._concept in self._concepts
        self._concepts.pop(self._concept, None)
        self._concepts[self._concept] = _Concept(found, self._restored(found, self._spec_of(found)))
        while len(self._concepts) > self._settings.concepts:
            del self._concepts[next(iter(self._concepts))]
        return True

    def _stored(self) -> _Stored:
        values = values_of(self._active, self._of.fingerprint())
        return _Stored(self._seen, dict(self._active.arrays()), {**values, "node": self._of.node()})

    def _spec_of(self, stored: _Stored) -> Member:
        """Of which of the two members a learner is that was set down."""
        return next(spec for spec in self._specs.values() if spec.node() == stored.values["node"])

    def _restored(self, stored: _Stored, spec: Member) -> StreamLearner:
        arrays = {f"it.{name}": array for name, array in stored.arrays.items()}
        return restored(spec, self.task, "it", arrays, stored.values, self._types, self._base)

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        kept = [*self._snapshots, *(each.stored for each in self._concepts.values())]
        return {
            **arrays_of(self._live),
            **{f"recent.{name}": array for name, array in self._recent.arrays().items()},
            **{f"questions.{name}": array for name, array in self._questions.arrays().items()},
            **{f"kept{at}.{name}": array.copy() for at, each in enumerate(kept) for name, array in each.arrays.items()},
            **self._late.arrays(0, 1 if self.task == "values" else len(self._classes)),
            **{f"judged.{name}": array for name, array in self._judged.arrays().items()},
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
            "monitor": _plain(self._monitor.snapshot()),
            "recent": self._recent.values(),
            "questions": self._questions.values(),
            "snapshots": [[each.event, each.values] for each in self._snapshots],
            "concepts": [
                [number, each.stored.event, each.stored.values, each.gain] for number, each in self._concepts.items()
            ],
            "judged": self._judged.values(),
            "spread": list(self._spread),
            "numbers": [self._concept, self._named, self._recalled, self._seen, self._drifted],
            "history": [list(each) for each in self._history[-1000:]],
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
        nodes = {str(spec.node()): spec for spec in self._specs.values()}
        self._of = nodes[str(live["active"]["node"])]
        self._live = {
            role: restored(self._spec(role), self.task, role, arrays, each, self._types, self._base)
            for role, each in live.items()
        }
        self._classes = {name: place for place, name in enumerate(signature.classes)}
        if len(self._classes) < len(signature.classes):
            raise ValueError("a class stands there twice")
        self._generation = {role: int(count) for role, count in values["generation"].items()}
        self._duels = {role: Duel(counts) for role, counts in values["duels"].items()}
        self._monitor.restore(_unplain(values["monitor"]))
        self._recent.restore(_under("recent.", arrays), values["recent"])
        self._questions.restore(_under("questions.", arrays), values["questions"])
        self._spread = [float(each) for each in values["spread"]]
        self._judged.restore(_under("judged.", arrays), values["judged"])
        kept = [*values["snapshots"], *(each[1:3] for each in values["concepts"])]
        stored = [
            _Stored(int(event), _under(f"kept{at}.", arrays), dict(held)) for at, (event, held) in enumerate(kept)
        ]
        self._snapshots = stored[: len(values["snapshots"])]
        of_concepts = stored[len(values["snapshots"]) :]
        self._concepts = {
            int(number): _Concept(each, self._restored(each, self._spec_of(each)), float(gain))
            for (number, _, _, gain), each in zip(values["concepts"], of_concepts, strict=True)
        }
        self._concept, self._named, self._recalled, self._seen, self._drifted = (
            int(each) for each in values["numbers"]
        )
        self._history = [[int(event), int(number)] for event, number in values["history"]]
        self._late.restore(values["late_ids"], arrays, int(values["given_up"]))
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _plain(tree: Any) -> Any:
    """Arrays of a state as lists, so that it is JSON."""
    if isinstance(tree, np.ndarray):
        array = cast("NDArray[Any]", tree)
        return {"array": array.tolist(), "type": array.dtype.str}
    if isinstance(tree, dict):
        return {name: _plain(each) for name, each in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list | tuple):
        return [_plain(each) for each in cast("list[Any]", tree)]
    return tree


def _unplain(tree: Any) -> Any:
    if isinstance(tree, dict):
        named = cast("dict[str, Any]", tree)
        if {*named} == {"array", "type"}:
            return np.array(named["array"], named["type"])
        return {name: _unplain(each) for name, each in named.items()}
    return [_unplain(each) for each in cast("list[Any]", tree)] if isinstance(tree, list) else tree
