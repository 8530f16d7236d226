"""The live learner of tables whose members are native code: events as a matrix, classes that grow, late labels, events that are set aside.

Of a question whose label is yet to come its features are kept, and what each member said of it, from which the mixture learns in the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Block, ColumnType, EventSignature
from mapsto.nn.online.event_matrix import EventMatrix, Part
from mapsto.nn.online.event_rows import LARGEST, OTHERS
from mapsto.nn.online.head import RowColumn
from mapsto.nn.online.learning import Answered, Answers, StreamLearner, Task, crowded, read_labels
from mapsto.nn.online.native_tabular import EXAMPLE, LATE_LABEL, PASSED_OVER, QUESTION, NativeTabular
from mapsto.nn.online.onnx_tabular import TabularSnapshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TabularLearner"]

_STATE = "learner."
MOST_CLASSES = 1000
"""Time and memory grow with the square of the classes; so many are hardly classes, but names or quantities."""


class TabularLearner(StreamLearner):
    """Members that learn a table, and what is kept for labels that come late.

    Parameters
    ----------
    types
        Columns whose type is known before the first event.
    task
        What labels are.
    forests, labels
        Whether it has forests, and members that look at the last labels alone.
    most_categories
        Words of a column that have a number of their own.
    most_late, late_bytes, late_seconds
        Questions that are kept for their labels: at most so many, in so many bytes, and so long by the events' times; the oldest are given
        up first.
    seed
        Of what the members draw.
    """

    def __init__(
        self,
        types: Mapping[str, ColumnType],
        *,
        task: Task,
        forests: bool,
        labels: bool,
        most_categories: int,
        most_late: int,
        late_bytes: float,
        late_seconds: float | None,
        seed: int,
    ) -> None:
        self.task = task
        self.aside = {}
        self._matrix = EventMatrix(types, most_categories=most_categories)
        self._native = NativeTabular(values=task == "values", forests=forests, labels=labels, work=0.0, seed=seed)
        self._classes: dict[str, int] = {}
        self._late = _Questions(len(self._native.members) + 1, most_late, late_bytes, late_seconds)

    @property
    def signature(self) -> EventSignature:
        return EventSignature(columns=self._matrix.columns, classes=tuple(self._classes))

    @property
    def size(self) -> tuple[int, int]:
        return self._matrix.width, len(self._classes)

    @property
    def doubts(self) -> list[str]:
        return [*map(crowded, self._matrix.crowded)]  # of classes there are never too many

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        one = self._learn_one(block, answered) if len(block.times) == 1 else None
        return self._learn(block, answered) if one is None else one

    def _learn_one(self, block: Block, answered: Answered | None) -> NDArray[np.float64] | None:
        """As `_learn`, of one event; None where anything of it is new or odd, or its label comes late: then nothing has changed."""
        if block.broken or not block.has_x.item():
            return None
        number: float | None = None
        if block.has_y.item():
            label = block.y.item()
            number = _value(label) if self.task == "values" else self._classes.get(str(label))
            if number is None:
                return None
        elif block.ids.item():
            return None
        x = self._matrix.one(block)
        if x is None:
            return None
        scores = self._native.learn_one(x.buffer_info()[0], number, self._late.stride)
        table = scores[:, : self._outputs].copy()
        if answered is not None and number is not None:
            labels = np.array([number], np.float64 if self.task == "values" else np.int64)
            answered(Answers(np.zeros(1, np.int64), table.copy(), labels))
        return table

    def _learn(self, block: Block, answered: Answered | None) -> NDArray[np.float64]:
        aside = dict(block.broken)
        labels = self._labels(block, aside)
        tables: list[tuple[int, NDArray[np.float64]]] = []
        learnt: list[int] = []
        numbers = np.zeros(len(block))
        for part in self._matrix.parts(block, aside, learn=True):
            for of_words in part.new:
                self._native.add_column(of_words=of_words)
            if part.new:
                self._late.grow(self._matrix.width, self._outputs)
            start = part.start
            while start < part.stop:
                kinds, slots = self._planned(block, part, start, labels, aside, numbers)
                stop = start + len(kinds)
                self._late.fit(self._matrix.width)
                x = part.x[start - part.start : stop - part.start]
                scores = self._native.learn(x, kinds, slots, numbers[start:stop], self._late.stride, self._late.arrays)
                tables.append((start, scores))
                learnt += (start + np.flatnonzero((kinds == EXAMPLE) | (kinds == LATE_LABEL))).tolist()
                if self._outputs > self._late.stride:
                    self._late.grow(self._matrix.width, self._outputs)
                start = stop
        for _, reason in sorted(aside.items()) if aside else ():
            self.aside[reason] = self.aside.get(reason, 0) + 1
        table = np.zeros((len(block), self._outputs))
        for start, scores in tables:
            width = min(scores.shape[1], self._outputs)
            table[start : start + len(scores), :width] = scores[:, :width]
        if answered is not None and learnt:
            events = np.array(learnt, np.int64)
            of_values = self.task == "values"
            answered(Answers(events, table[events], numbers[events] if of_values else numbers[events].astype(np.int64)))
        return table

    def predict(self, block: Block) -> NDArray[np.float64]:
        aside, table = dict(block.broken), np.full((len(block), self._outputs), np.nan)
        for part in self._matrix.parts(block, aside, learn=False):
            asked = [event for event in range(part.start, part.stop) if block.has_x[event] and event not in aside]
            if asked and self._outputs:
                table[asked] = self._native.predict(part.x[np.array(asked) - part.start])
        return table

    def snapshot(self) -> tuple[TabularSnapshot, tuple[RowColumn, ...]]:
        counts: list[int] = []
        layout: list[RowColumn] = []
        for column, length in zip(self._matrix.columns, self._matrix.lengths(), strict=True):
            words = column.categories
            places = tuple(range(len(counts), len(counts) + length))
            counts += [len(words)] * length
            layout.append(
                RowColumn(name=column.name, type=column.type, places=places, categories=words, crowded=OTHERS in words)
            )
        native = self._native.arrays()
        return TabularSnapshot(native, values=self.task == "values", categories=counts), tuple(layout)

    def shares(self) -> Mapping[str, float]:
        return self._native.shares()

    def importance(self) -> dict[str, float]:
        """How much of the forests' gain is each column's; it sums to 1, or is empty without trees."""
        sums: dict[str, float] = {}
        for name, gain in zip(self._matrix.inputs, self._native.importance().tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + gain
        return sums if any(sums.values()) else {}

    def explain(self, block: Block) -> list[dict[str, Any]]:
        """What stands behind the answer to each event: what `members` say, their `shares`, the `nearest` past events.

        Changes nothing. None stands behind an event that would be set aside: its entry is empty.
        """
        aside, names = dict(block.broken), list(self._classes)
        found: list[dict[str, Any]] = []
        shares = self.shares()
        for part in self._matrix.parts(block, aside, learn=False):
            for event in range(part.start, part.stop):
                if not block.has_x[event] or event in aside:
                    found.append({})
                    continue
                what = self._native.explain(part.x[event - part.start])
                nearest = [
                    {
                        "distance": distance,
                        "features": self._named(row),
                        "label": label if self.task == "values" else names[int(label)],
                    }
                    for distance, row, label in what.neighbours
                ]
                members = {name: self._said(p) for name, p in what.members.items()}
                found.append({"members": members, "shares": shares, "nearest": nearest})
        return found

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        native = {_STATE + name: array for name, array in self._native.arrays().items()}
        return {**native, **self._late.state(self._matrix.width, self._outputs)}

    def values(self) -> dict[str, Any]:
        unmet = self._matrix.unmet
        return {
            **({"unmet": unmet} if unmet else {}),
            **({"task": self.task} if self.task != "classes" else {}),
            "lengths": self._matrix.lengths(),
            "late_ids": self._late.ids,
            "given_up": self._late.given_up,
            "aside": dict(self.aside),
        }

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._classes = {name: place for place, name in enumerate(signature.classes)}
        if len(self._classes) < len(signature.classes):
            raise ValueError("a class stands there twice")
        self._matrix.restore(signature.columns, [int(each) for each in values["lengths"]], values.get("unmet", []))
        native = {name.removeprefix(_STATE): array for name, array in arrays.items() if name.startswith(_STATE)}
        if tuple(native["inputs.words"].astype(bool).tolist()) != self._matrix.of_words():
            raise ValueError("the columns are of other types than those that the members have learnt")
        self._native.restore(native, columns=self._matrix.width)
        if self._native.classes != self._outputs:
            raise ValueError(f"the members know {self._native.classes} classes, not {self._outputs}")
        self._late.restore(values["late_ids"], arrays, self._matrix.width, self._outputs, int(values["given_up"]))
        past = native["ring.x"].reshape(len(native["ring.y"]), self._matrix.width)
        for rows in (past, self._late.arrays[0]):
            self._require_words(rows)
        questions = np.vstack([np.full((1, self._matrix.width), np.nan), past[:1]])
        if self._outputs and not np.isfinite(self._native.predict(questions)).all():
            raise ValueError("there is NaN among the scores")
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}

    # -- private

    def _require_words(self, rows: NDArray[Any]) -> None:
        """Each word in rows (n, columns) is the number of a category."""
        at = 0
        for column, length in zip(self._matrix.columns, self._matrix.lengths(), strict=True):
            codes = rows[:, at]
            codes = codes[~np.isnan(codes)] if column.type == "word" else codes[:0]
            if ((codes < 0) | (codes >= len(column.categories)) | (codes != np.floor(codes))).any():
                raise ValueError(f"a word of column '{column.name}' is none of its categories")
            at += length

    @property
    def _outputs(self) -> int:
        return 1 if self.task == "values" else len(self._classes)

    def _labels(self, block: Block, aside: dict[int, str]) -> list[Any]:
        """The label of each event, a text or a number; None without one."""
        if self.task == "classes":
            return read_labels(block, aside)
        labels: list[Any] = []
        for event, (label, has) in enumerate(zip(block.y.tolist(), block.has_y.tolist(), strict=True)):
            labels.append(_value(label) if has else None)
            if has and labels[-1] is None:
                aside[event] = "an empty, NaN or infinite label"
        return labels

    def _planned(
        self,
        block: Block,
        part: Part,
        start: int,
        labels: list[Any],
        aside: dict[int, str],
        numbers: NDArray[np.float64],
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """What each event of a part from `start` on is and where it is kept; the numbers of the labels are written.

        It ends with an event that brings more classes than there is room for in what is kept of a question.
        """
        count = part.stop - start
        kinds, slots = np.full(count, PASSED_OVER, np.uint8), np.full(count, -1, np.int32)
        has_x, ids = block.has_x[start : part.stop].tolist(), block.ids[start : part.stop].tolist()
        times = block.times
        for place in range(count):
            event = start + place
            label = labels[event]
            if event in aside:
                continue
            if label is not None and self._is_beyond(label):
                aside[event] = f"a class beyond the {MOST_CLASSES} that are kept"
                continue
            if has_x[place]:
                kinds[place] = QUESTION if label is None else EXAMPLE
                if label is None and ids[place]:
                    slots[place] = self._late.keep(ids[place], float(times[event]), self._matrix.width, self._outputs)
            elif label is None:
                continue
            else:
                slot = self._late.take(ids[place], float(times[event]))
                if slot is None:
                    aside[event] = "a label of an unknown id"
                    continue
                kinds[place], slots[place] = LATE_LABEL, slot
            if label is not None:
                numbers[event] = label if self.task == "values" else self._classes.setdefault(label, len(self._classes))
                if self._outputs > self._late.stride:
                    return kinds[: place + 1], slots[: place + 1]
        return kinds, slots

    def _is_beyond(self, label: Any) -> bool:
        return self.task == "classes" and len(self._classes) >= MOST_CLASSES and label not in self._classes

    def _named(self, row: NDArray[np.float64]) -> dict[str, Any]:
        """A row's values by column, words as words, what is missing as None."""
        named: dict[str, Any] = {}
        at = 0
        for column, length in zip(self._matrix.columns, self._matrix.lengths(), strict=True):
            values = row[at : at + length].tolist()
            at += length
            if column.type == "vector":
                named[column.name] = values
            elif math.isnan(values[0]):
                named[column.name] = None
            else:
                named[column.name] = column.categories[int(values[0])] if column.type == "word" else values[0]
        return named

    def _said(self, p: NDArray[np.float64]) -> float | dict[str, float]:
        if self.task == "values":
            return float(p[0])
        return dict(zip(self._classes, p.tolist(), strict=True))


def _value(label: Any) -> float | None:
    try:
        value = float(label)
    except (TypeError, ValueError):
        return None
    return value if -LARGEST <= value <= LARGEST else None


class _Questions:
    """What is kept of questions until their labels come: a slot each, the oldest given up first.

    Slots are rows of two arrays: features (slots, columns), and answers (slots, members + 1, stride) of which the last is the mixture's.
    """

    def __init__(self, answers: int, most: int, most_bytes: float, seconds: float | None) -> None:
        self._answers, self._most, self._most_bytes, self._seconds = answers, most, most_bytes, seconds
        self._kept: dict[str, tuple[int, float]] = {}
        """By id, the oldest first: the slot and the time."""
        self._free: list[int] = []
        self._slots = 0
        self.stride = 1
        self.arrays = (np.zeros((0, 0)), np.zeros((0, answers, 1)))
        self.given_up = 0

    @property
    def ids(self) -> list[str]:
        return list(self._kept)

    def keep(self, name: str, time: float, columns: int, classes: int) -> int:
        """The slot of a question; -1 where nothing is kept. A later one of the same id takes the place of an earlier one."""
        before = self._kept.pop(name, None)
        if before is not None:
            self._free.append(before[0])
        most = self._room(columns, classes)
        self._give_up(time, most - 1)
        if most < 1:
            self.given_up += 1
            return -1
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        slot = self._free.pop()
        self._kept[name] = (slot, time)
        return slot

    def take(self, name: str, time: float) -> int | None:
        """The slot of a question, which is then no longer kept; None where it is not."""
        self._give_up(time, self._most)
        kept = self._kept.pop(name, None)
        if kept is None:
            return None
        self._free.append(kept[0])
        return kept[0]

    def grow(self, columns: int, classes: int) -> None:
        """Make room for more columns or classes; the oldest are given up where all do not fit any more."""
        room = self._room(columns, classes)
        self._give_up(-math.inf, room)
        if self._slots > room:
            slots = [slot for slot, _ in self._kept.values()]
            self.arrays = (self.arrays[0][slots], self.arrays[1][slots])
            self._kept = {name: (slot, time) for slot, (name, (_, time)) in enumerate(self._kept.items())}
            self._free, self._slots = [], len(slots)
        self._widen(len(self.arrays[0]), columns, _stride(classes))

    def fit(self, columns: int) -> None:
        """Make room for all slots."""
        slots = len(self.arrays[0])
        if self._slots > slots:
            slots = max(self._slots, min(2 * slots + 16, self._room(columns, self.stride)))
        self._widen(slots, columns, self.stride)

    def _widen(self, slots: int, columns: int, stride: int) -> None:
        if (slots, columns, stride) == (*self.arrays[0].shape, self.stride):
            return
        features, answers = np.full((slots, columns), np.nan), np.zeros((slots, self._answers, stride))
        old = self.arrays
        features[: len(old[0]), : old[0].shape[1]] = old[0]
        answers[: len(old[1]), :, : self.stride] = old[1]
        self.arrays, self.stride = (features, answers), stride

    def state(self, columns: int, classes: int) -> dict[str, NDArray[Any]]:
        self.grow(columns, classes)
        slots = [slot for slot, _ in self._kept.values()]
        return {
            "late_rows": self.arrays[0][slots],
            "late_answers": self.arrays[1][slots][:, :, :classes],
            "late_times": np.array([time for _, time in self._kept.values()], np.float64),
        }

    def restore(
        self, ids: list[str], arrays: Mapping[str, NDArray[Any]], columns: int, classes: int, given_up: int
    ) -> None:
        rows, answers, times = (arrays[f"late_{name}"] for name in ("rows", "answers", "times"))
        shapes = ((len(ids), columns), (len(ids), self._answers, classes), (len(ids),))
        if (rows.shape, answers.shape, times.shape) != shapes or len(set(ids)) < len(ids):
            raise ValueError(f"{len(ids)} questions with rows {rows.shape} and answers {answers.shape}")
        if np.isinf(rows).any() or not np.isfinite(answers).all():
            raise ValueError("a question's row holds infinity, or its answers NaN")
        self._kept = {name: (slot, time) for slot, (name, time) in enumerate(zip(ids, times.tolist(), strict=True))}
        self._slots, self.given_up = len(ids), given_up
        self._widen(len(ids), columns, _stride(classes))
        self.arrays[0][: len(ids)] = rows
        self.arrays[1][: len(ids), :, :classes] = answers

    def _room(self, columns: int, classes: int) -> int:
        return min(self._most, int(self._most_bytes // (8 * (columns + self._answers * _stride(classes)))))

    def _give_up(self, time: float, most: int) -> None:
        while self._kept:
            name, (slot, asked) = next(iter(self._kept.items()))
            old = self._seconds is not None and time - asked > self._seconds
            if len(self._kept) <= max(most, 0) and not old:
                return
            del self._kept[name]
            self._free.append(slot)
            self.given_up += 1


def _stride(classes: int) -> int:
    """How many classes there is room for in an answer: a power of two, so that answers are seldom copied."""
    return 1 << max(classes - 1, 0).bit_length()
