"""The live learner whose members are online learners: it chooses which of them take an event, and makes one answer of theirs.

Members may have met other classes in another order: what they say is put into the order of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from mapsto.kinds import Block, ColumnType, EventSignature, Network, Package, Task
from mapsto.nn.online.kept_events import KeptEvents
from mapsto.nn.online.late_labels import LateLabels
from mapsto.nn.online.learning import Answered, Answers, StreamLearner
from mapsto.nn.online.members import Member, arrays_of, restored, under, values_of
from mapsto.nn.online.mixtures import mixture_of, softmax
from mapsto.nn.online.selection.context import Context, number_in
from mapsto.nn.online.selection.linucb import CONTEXT
from mapsto_runtime.shown import few

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.online.selection.chooser import Chooser

__all__ = ["SEGMENT", "SelectionLearner"]

SEGMENT = 64
"""Events for which members are chosen, where they are not chosen for each."""
_USER_MEMORY, _USER_RATE = 0.98, 0.5
"""Of a user's own right answers: what one counts of the next, and how sharply they weigh."""
_MOST_USERS = 10_000
_FIRST, _EVERY = 200, 10
"""Where one member takes an event, all learn the first ones, and then every tenth."""
_NO_CONTEXT = np.zeros(0)


class _Part(NamedTuple):
    """What the members said of events on end."""

    start: int
    block: Block
    said: dict[int, NDArray[np.float64]]
    """Member → (n, its classes)."""
    labels: dict[int, Any]
    """Event of the part → its label as it was learnt: a text or a number."""


class SelectionLearner(StreamLearner):
    """Members, what chooses among them, and the mixtures of their answers.

    Parameters
    ----------
    members
        What learns.
    types, task
        As of `Online._learner`.
    chooser
        Which members take what.
    by
        The column that says whose an event is; empty for none.
    most_late
        Questions that are kept for labels that come late.
    categories
        Words of a column that get an input of their own.
    base
        The network that members stand on, where one of them trains it.
    """

    def __init__(
        self,
        members: Sequence[Member],
        types: Mapping[str, ColumnType],
        task: Task,
        *,
        chooser: Chooser,
        by: str,
        most_late: int,
        categories: int,
        base: Network | Package | None = None,
    ) -> None:
        self.task = task
        self.aside = {}
        self._specs, self._types = tuple(members), dict(types)
        self._base, self._common = base, {"late": most_late, "categories": categories}
        self._members = [member.made(types, task, base, common=self._common) for member in members]
        self._chooser, self._by = chooser, by
        self._mixture = mixture_of(task, len(members))
        self._users: dict[str, NDArray[np.float64]] = {}
        """User → discounted (M,) right answers of members."""
        self._trust = np.zeros(2)
        """Discounted right answers of the mixture of all, and of the user's own."""
        self._context = Context(CONTEXT)
        self._late = LateLabels(most_late)
        self._asked = KeptEvents(most_late)
        """Whose questions were, and their contexts."""
        self._classes: dict[str, int] = {}
        self._awake = np.ones(len(members), np.bool_)
        self._picked = self._awake
        """Which one answers, where one member takes an event."""
        self._seen = 0
        self._costed: tuple[list[tuple[int, int]], NDArray[np.float64]] = ([], np.zeros(0))
        """Sizes of the members when last asked, and what they cost then."""
        self._counts = np.zeros((2, len(members)))
        """Of each member: events that it took, and right answers to those that had a label; of values how near they were, 0 to 1."""
        self._labels = np.zeros(len(members))
        self._error = np.zeros(2)
        """Of values: how many, and the mean absolute error of all members."""

    # -- what the loop asks

    @property
    def signature(self) -> EventSignature:
        columns = max((member.signature.columns for member in self._members), key=len)
        return EventSignature(columns=columns, classes=tuple(self._classes))

    @property
    def size(self) -> tuple[int, int]:
        return max(member.size[0] for member in self._members), len(self._classes)

    @property
    def doubts(self) -> list[str]:
        found = list(dict.fromkeys(doubt for member in self._members for doubt in member.doubts))
        columns = [column.name for column in self.signature.columns]
        if self._by and columns and self._by not in columns:
            found.append(
                f"there is no column '{self._by}' by which to tell users apart, and nothing is learnt of each (by: {few(columns)})"
            )
        return found

    @property
    def names(self) -> list[str]:
        """Of the members: those of which there are two have their fields beside, or a number."""
        shorts = [spec.short for spec in self._specs]
        found = [
            spec.short
            if shorts.count(spec.short) == 1
            else ", ".join([spec.short, *(f"{field} {value}" for field, value in spec.fields.items())])
            for spec in self._specs
        ]
        return [
            name if found.count(name) == 1 else f"{name}, {found[: place + 1].count(name)}"
            for place, name in enumerate(found)
        ]

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        rows: list[NDArray[np.float64]] = [np.zeros(0)] * len(block)
        learnt: list[tuple[int, Any]] = []
        for part in self._parts(block):
            rows[part.start : part.start + len(part.block)] = self._take(part)
            learnt += [(part.start + place, label) for place, label in sorted(part.labels.items())]
        table = self._table(rows)
        if answered is not None and learnt:
            events = np.array([event for event, _ in learnt], np.int64)
            if self.task == "values":
                labels: NDArray[Any] = np.array([label for _, label in learnt], np.float64)
            else:
                labels = np.array([self._classes[label] for _, label in learnt], np.int64)
            answered(Answers(events, np.nan_to_num(table[events]), labels))
        return table

    def predict(self, block: Block) -> NDArray[np.float64]:
        costs = self._costs()
        outputs = self._outputs(len(self._classes))
        cube, answering = self._cube({at: member.predict(block) for at, member in enumerate(self._members)}, len(block))
        table = np.full((len(block), outputs), np.nan)
        for event in np.flatnonzero(block.has_x).tolist():
            if event in block.broken:
                continue
            user = self._user(block, event)
            context = self._context.of(block, event, learn=False) if self._chooser.contextual else _NO_CONTEXT
            there = answering[event] & self._chooser.best(costs, user, context)
            if not there.any():
                there = answering[event]
            if not there.any():
                table[event] = 0.0
            elif self._chooser.each_event:
                table[event] = cube[event][int(there.argmax())]
            else:
                table[event] = self._answer(cube[event], there, user, self._mixture.answer(cube[event], there))
        return table

    def shares(self) -> Mapping[str, float]:
        there = np.ones(len(self._members), np.bool_) if self._chooser.each_event else self._awake
        return dict(zip(self.names, self._mixture.shares(there).tolist(), strict=True))

    def importance(self) -> Mapping[str, float]:
        best = int(self._mixture.shares(self._awake).argmax())
        return self._members[best].importance()

    def tables(self) -> list[dict[str, Any]]:
        rows = [
            [name, int(taken), 100 * float(right) / max(float(labels), 1.0)]
            for name, taken, right, labels in zip(self.names, *self._counts, self._labels, strict=True)
        ]
        said = "right" if self.task == "classes" else "near, of 100 for an error of 0"
        own: dict[str, Any] = {"title": "Members", "columns": ["member", "events that it took", said], "rows": rows}
        if self.task == "classes":
            own["units"] = {said: "%"}
        return [own, *self._chooser.tables(self.names)]

    # -- private

    def _outputs(self, classes: int) -> int:
        return 1 if self.task == "values" else classes

    def _costs(self) -> NDArray[np.float64]:
        sizes = [member.size for member in self._members]
        if sizes != self._costed[0]:
            costs = np.array([spec.cost(*size) for spec, size in zip(self._specs, sizes, strict=True)])
            self._costed = (sizes, costs)
        return self._costed[1]

    def _parts(self, block: Block) -> Iterator[_Part]:
        """The block in parts that the same members take, as they have taken them."""
        start, count = 0, len(block)
        while start < count:
            if self._chooser.each_event:
                stop = start + 1
                part = block if count == 1 else block.take(start, stop)
                user = self._user(part, 0)
                context = self._context.of(part, 0, learn=True) if self._chooser.contextual else _NO_CONTEXT
                everyone = np.ones(len(self._members), np.bool_)
                if bool(part.has_x[0]):
                    self._picked = self._chooser.choose(self._costs(), user, context)
                    # who never learns is never right: all learn at first, and now and then
                    self._awake = everyone if self._seen < _FIRST or not self._seen % _EVERY else self._picked
                else:  # a label that comes late is for whoever was asked
                    self._awake = everyone
            else:
                stop = min(count, start + SEGMENT - self._seen % SEGMENT)
                part = block if (start, stop) == (0, count) else block.take(start, stop)
                if self._seen % SEGMENT == 0:
                    self._awake = self._chooser.choose(self._costs(), "", _NO_CONTEXT)
            yield from self._runs(part, start)
            self._seen += stop - start
            start = stop

    def _runs(self, part: Block, start: int) -> Iterator[_Part]:
        """A part as those have taken it that are awake; a label that comes late is for all, one of whom was asked."""
        late = [] if self._chooser.each_event else np.flatnonzero(~part.has_x & part.has_y).tolist()
        everyone, first = np.ones(len(self._members), np.bool_), 0
        for event in [*late, len(part)]:
            if event > first:
                run = part if (first, event) == (0, len(part)) else part.take(first, event)
                yield self._taken(run, start + first, self._awake)
            if event < len(part):
                yield self._taken(part.take(event, event + 1), start + event, everyone)
            first = event + 1

    def _taken(self, part: Block, start: int, awake: NDArray[np.bool_]) -> _Part:
        said: dict[int, NDArray[np.float64]] = {}
        labels: dict[int, Any] = {}
        asides: list[dict[str, int]] = []
        for at in np.flatnonzero(awake).tolist():
            member, answers = self._members[at], list[Answers]()
            self._counts[0, at] += np.count_nonzero(part.has_x)
            before = dict(member.aside)
            said[at] = member.learn(part, answers.append)
            asides.append({why: count - before.get(why, 0) for why, count in member.aside.items()})
            names = member.signature.classes
            for each in answers:
                for event, label in zip(each.events.tolist(), each.labels.tolist(), strict=True):
                    labels.setdefault(event, label if self.task == "values" else names[label])
        for why, count in min(asides, key=lambda each: sum(each.values())).items():
            if count:  # what no member took
                self.aside[why] = self.aside.get(why, 0) + count
        return _Part(start, part, said, labels)

    def _places(self, at: int, known: int) -> NDArray[np.int64] | None:
        """Where a member's classes stand among those of the whole, -1 for one that is not there; None where they are the same."""
        if self.task == "values":
            return None
        names = self._members[at].signature.classes
        found = np.array([self._classes.get(name, -1) for name in names], np.int64)
        return None if np.array_equal(found, np.arange(len(found))) else found

    def _cube(
        self, said: Mapping[int, NDArray[np.float64]], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """What members say of n events (n, M, outputs) in the order of the classes that are known now, and which have answered (n, M).

        A member that knows no class yet has not.
        """
        known = len(self._classes)
        outputs = self._outputs(known)
        cube = np.zeros((count, len(self._members), outputs))
        there = np.zeros((count, len(self._members)), np.bool_)
        for at, scores in said.items():
            if not scores.shape[1]:
                continue
            odd = np.isnan(scores[:, 0])
            places = self._places(at, known)
            if places is None:
                width = min(outputs, scores.shape[1])
                cube[:, at, :width] = scores[:, :width]
            else:
                taken = np.flatnonzero((places >= 0) & (places < outputs))
                cube[:, at, places[taken]] = scores[:, taken]
            cube[odd, at] = 0.0
            there[:, at] = ~odd & (self.task == "values" or cube[:, at].any(1))
        return cube, there

    def _take(self, part: _Part) -> list[NDArray[np.float64]]:
        """Answer the events of a part, and learn their labels; the scores (outputs,) of before, NaN of an event that was set aside."""
        found: list[NDArray[np.float64]] = []
        while len(found) < len(part.block):
            known, start = len(self._classes), len(found)
            stop = next(
                (at + 1 for at in range(start, len(part.block)) if self._is_new(part.labels.get(at))), len(part.block)
            )
            cube, there = self._cube(part.said, len(part.block))
            run = slice(start, stop)
            numbers = self._numbers([part.labels.get(at) for at in range(start, stop)])
            answers = self._mixture.run(cube[run], there[run], numbers)
            newest = part.labels.get(stop - 1)
            if self._is_new(newest):
                self._classes[str(newest)] = known
            found += [
                self._seen_of(part, place, cube[place], there[place], answers[place - start])
                for place in range(start, stop)
            ]
            if len(self._classes) > known:  # the first of its class: the mixture learns it with room for it
                wide = np.pad(cube[stop - 1], ((0, 0), (0, 1)))
                self._mixture.run(wide[None], there[None, stop - 1], np.array([known], np.int32))
        return found

    def _is_new(self, label: Any) -> bool:
        return self.task == "classes" and label is not None and label not in self._classes

    def _numbers(self, labels: Sequence[Any]) -> NDArray[Any]:
        """Labels as the mixture takes them; a class that is not known yet is none."""
        if self.task == "values":
            return np.array([np.nan if label is None else label for label in labels], np.float64)
        return np.array([self._classes.get(label, -1) for label in labels], np.int32)

    def _seen_of(
        self,
        part: _Part,
        place: int,
        rows: NDArray[np.float64],
        there: NDArray[np.bool_],
        mixed: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The answer to an event, of which the members say `rows` and the mixture `mixed`; what is not the mixture learns its label."""
        block, label, outputs = part.block, part.labels.get(place), len(mixed)
        name = str(block.ids[place])
        user, context = self._of_event(block, place, name)
        answer = self._answer(rows, there, user, mixed)
        if not block.has_x[place]:
            kept = self._late.take(name, 0, outputs)
            answer = np.full(outputs, np.nan) if kept is None else kept[1]
            if label is None:
                return np.full(outputs, np.nan)
        elif label is None and (
            place in block.broken or all(np.isnan(own[place, :1]).any() for own in part.said.values())
        ):
            return np.full(outputs, np.nan)
        elif label is None and name and not block.has_y[place]:
            self._late.keep(name, np.zeros(0), answer)
            if user or len(context):
                self._asked.add({}, {"user": user, "context": context.tolist()}, name)
        if label is not None and there.any():
            self._judge(rows, there, label, user, context, mixed)
        return answer

    def _of_event(self, block: Block, event: int, name: str) -> tuple[str, NDArray[np.float64]]:
        """Whose an event is, and its context; of a label that comes late those of its question."""
        if not block.has_x[event]:
            kept = self._asked.pop(name) if name else None
            if kept is None:
                return "", np.zeros(CONTEXT) if self._chooser.contextual else _NO_CONTEXT
            told = cast("dict[str, Any]", kept[1])
            return str(told["user"]), np.array(told["context"], np.float64)
        context = self._context.of(block, event, learn=False) if self._chooser.contextual else _NO_CONTEXT
        return self._user(block, event), context

    def _answer(
        self, rows: NDArray[np.float64], there: NDArray[np.bool_], user: str, mixed: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self._chooser.each_event and there.any():
            picked = there & self._picked
            return rows[int((picked if picked.any() else there).argmax())]
        own = self._users.get(user) if user and there.any() else None
        if own is None:
            return mixed
        weights = softmax(_USER_RATE * self._trust)
        return weights[0] * mixed + weights[1] * self._of_user(rows, there, own)

    @staticmethod
    def _of_user(rows: NDArray[np.float64], there: NDArray[np.bool_], own: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answer of those that were right for a user."""
        present = np.flatnonzero(there)
        return (softmax(_USER_RATE * own[present])[:, None] * rows[present]).sum(0)

    def _judge(
        self,
        rows: NDArray[np.float64],
        there: NDArray[np.bool_],
        label: Any,
        user: str,
        context: NDArray[np.float64],
        mixed: NDArray[np.float64],
    ) -> None:
        """Let what chooses know who was right about a label."""
        if self.task == "classes":
            target = float(self._classes[label])
            best = rows.argmax(1) if rows.shape[1] else np.full(len(rows), -1)
            right = (best == target) * 1.0
        else:
            target = float(label)
            errors = np.abs(rows[:, 0] - target)
            count, mean = self._error.tolist()
            mean += (float(errors[there].mean()) - mean) / (count + 1.0)
            self._error[:] = min(count + 1.0, 1000.0), mean
            right = 1.0 / (1.0 + errors / (mean or 1.0))
        self._counts[1, there] += right[there]
        self._labels[there] += 1.0
        self._chooser.learn(there, right, user, context)
        if not user:
            return
        own = self._users.pop(user, None)
        if own is not None and not self._chooser.each_event:
            both = mixed, self._of_user(rows, there, own)
            good = [
                float(each.argmax() == target) if self.task == "classes" else 1.0 / (1.0 + abs(float(each[0]) - target))
                for each in both
            ]
            self._trust = 0.998 * self._trust + good
        own = np.zeros(len(there)) if own is None else own
        self._users[user] = np.where(there, _USER_MEMORY * own + right, own)
        while len(self._users) > _MOST_USERS:
            del self._users[next(iter(self._users))]

    def _user(self, block: Block, event: int) -> str:
        column = block.x.get(self._by) if self._by else None
        if column is None or column.ndim > 1:
            return ""
        number = number_in(column[event])  # a number by itself: one word among them makes a block's numbers texts
        if number is None:
            return str(column[event])
        return "" if number != number else str(number)  # noqa: PLR0124 - NaN

    def _table(self, rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """(n, outputs), 0 for a class that was not known then."""
        table = np.zeros((len(rows), self._outputs(len(self._classes))))
        for event, row in enumerate(rows):
            table[event, : len(row)] = row
            if len(row) and np.isnan(row[0]):
                table[event] = np.nan
        return table

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        users = np.array(list(self._users.values()), np.float64).reshape(-1, len(self._members))
        return {
            **arrays_of({f"member{at}": each for at, each in enumerate(self._members)}),
            **{f"mixture.{name}": array for name, array in self._mixture.arrays().items()},
            **{f"chooser.{name}": array for name, array in self._chooser.arrays().items()},
            **self._late.arrays(0, self._outputs(len(self._classes))),
            "users": users,
            "trust": self._trust.copy(),
            "error": self._error.copy(),
            "counts": np.concatenate([self._counts, self._labels[None]]),
            "awake": self._awake.copy(),
        }

    def values(self) -> dict[str, Any]:
        members = [values_of(each, spec.fingerprint()) for spec, each in zip(self._specs, self._members, strict=True)]
        return {
            **({"task": self.task} if self.task != "classes" else {}),
            "members": members,
            "chooser": self._chooser.values(),
            "context": self._context.values(),
            "asked": self._asked.values(),
            "users": list(self._users),
            "seen": self._seen,
            "late_ids": self._late.ids,
            "given_up": self._late.given_up,
            "aside": dict(self.aside),
        }

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        kept = cast("list[Mapping[str, Any]]", values["members"])
        if len(kept) != len(self._specs):
            raise ValueError(f"{len(kept)} members in place of {len(self._specs)}")
        self._members = [
            restored(spec, self.task, f"member{at}", arrays, kept[at], self._types, self._base, common=self._common)
            for at, spec in enumerate(self._specs)
        ]
        self._classes = {name: place for place, name in enumerate(signature.classes)}
        if len(self._classes) < len(signature.classes):
            raise ValueError("a class stands there twice")
        self._mixture.restore(under("mixture.", arrays))
        self._chooser.restore(under("chooser.", arrays), cast("Mapping[str, Any]", values["chooser"]))
        self._context.restore(cast("Mapping[str, Any]", values["context"]))
        self._asked.restore({}, cast("Mapping[str, Any]", values["asked"]))
        for _, _, told in self._asked:
            length = CONTEXT if self._chooser.contextual else 0
            if np.shape(cast("dict[str, Any]", told)["context"]) != (length,):
                raise ValueError("a question's context is of another length")
        names, users = [str(each) for each in cast("list[Any]", values["users"])], arrays["users"]
        if users.shape != (len(names), len(self._members)) or not np.isfinite(users).all():
            raise ValueError(f"right answers of {users.shape} for {len(names)} users, or NaN among them")
        self._users = {name: users[place].copy() for place, name in enumerate(names)}
        self._trust, self._error = arrays["trust"].copy(), arrays["error"].copy()
        counts = arrays["counts"]
        if counts.shape != (3, len(self._members)) or not np.isfinite(counts).all():
            raise ValueError(f"counts of {counts.shape}, or NaN among them")
        self._counts, self._labels = counts[:2].copy(), counts[2].copy()
        self._awake, self._seen = arrays["awake"].astype(np.bool_), int(values["seen"])
        if (self._trust.shape, self._error.shape, self._awake.shape) != ((2,), (2,), (len(self._members),)):
            raise ValueError("of other members")
        self._late.restore(cast("list[str]", values["late_ids"]), arrays, int(values["given_up"]))
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}
