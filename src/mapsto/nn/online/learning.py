"""Live learners of streams: each answers first and learns after, and keeps what a label that comes late will need.

`StreamLearner` is what the loop of online learning asks of one. `TableLearner` is the one for a `Rule`: events as rows that grow, classes
that grow, late labels, events that are set aside. A learner that takes whole blocks, as native code does, offers the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from mapsto.kinds import Block, ColumnType, EventSignature, Network
from mapsto.nn.online.event_rows import EventRows
from mapsto.nn.online.head import Head, RowColumn
from mapsto.nn.online.late_labels import LateLabels
from mapsto.nn.online.one_thread import one_thread
from mapsto.nn.online.onnx_tabular import TabularSnapshot
from mapsto.nn.online.prequential import ClassRecord, Record, ValueRecord
from mapsto.nn.online.rule import BlockRule, Rule
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "Answers", "StreamLearner", "TableLearner", "Task", "crowded", "many_classes", "read_labels"]

_MANY_CLASSES = 1000
_SHARED = 1024
"""Numbers of a matrix from which on BLAS may share its product with a row among threads; it does from about 9,000 on."""
_FEW = 4
"""So many events are learnt one by one where they cannot be learnt at once."""
_MOST = 0.9
"""Where fewer events than this share have features and a label, as where labels come late, a block is not halved."""

Task: TypeAlias = Literal["classes", "values"]
"""What labels are."""


class Answers(NamedTuple):
    """What was answered to the n events of a block whose labels were learnt, in the order in which they were."""

    events: NDArray[np.int64]
    """(n,), their numbers in the block."""
    scores: NDArray[np.float64]
    """(n, K) from before the label was seen; 0 for a class that was not known then. Of values (n, 1), what was predicted."""
    labels: NDArray[Any]
    """(n,), int64: the numbers of their classes, 0 to K - 1. Of values float64."""
    ranks: NDArray[np.float64] | None = None
    """(n,), of a learner that ranks: the place of what came among what it could have been, from 1 on; NaN where that was not asked."""
    parts: Mapping[str, NDArray[np.float64]] | None = None
    """(n,) each, of a learner that mixes: the probability that a part of it, by itself, gave to the label that came."""


Answered: TypeAlias = Callable[[Answers], None]
"""Called once a block, or a part of one, after its labels were learnt; not where there was none."""


class StreamLearner:
    """What the loop of online learning asks of a live learner. Only `learn` and `restore` change it."""

    task: Task = "classes"
    """What it learns. Where that is values, `values` says so under ``task``, and `signature` has no classes."""
    aside: dict[str, int]
    """Why events were set aside, and how many."""

    @property
    @abstractmethod
    def signature(self) -> EventSignature:
        """What has been met so far."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Inputs and classes: where they grow, `doubts` is asked."""

    @property
    def doubts(self) -> list[str]:
        """What was met that it makes little of, each with what to do about it."""
        return []

    @abstractmethod
    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        """See `mapsto.kinds.model.Learner`; `answered` is told of the labels that were learnt."""

    @abstractmethod
    def predict(self, block: Block) -> NDArray[np.float64]:
        """See `mapsto.kinds.model.Learner`."""

    def head(self) -> tuple[Head, tuple[RowColumn, ...]] | None:
        """What it has learnt as a small network over rows, and what rows are made of; None where it is no such network."""
        return None

    def snapshot(self) -> tuple[TabularSnapshot, tuple[RowColumn, ...]] | None:
        """What `online.tabular` is at this moment, and the inputs it knows; None of another learner."""
        return None

    def network(self) -> Network | None:
        """The network that it has become, where it trains one; None of another learner."""
        return None

    def of_prepared(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        """Scores (N, classes) of samples as its network takes them, of a learner that trains one. Changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} trains no network")

    def shares(self) -> Mapping[str, float]:
        """Its members' present shares of the answer, which sum to 1; empty where there is one rule."""
        return {}

    def importance(self) -> Mapping[str, float]:
        """How much each column matters, which sums to 1; empty where that is not known."""
        return {}

    def raise_rate(self, factor: float) -> bool:
        """Learn so many times faster for a while; False where it has no rate, and nothing is done."""
        return False

    def reset_head(self) -> bool:
        """Let what answers begin anew, and keep what makes features; False where it has no such parts, and nothing is done."""
        return False

    def record(self, known: int) -> Record:
        """The prequential record of what it is asked, at its beginning; `known`: classes that an earlier stream brought."""
        return ClassRecord(known) if self.task == "classes" else ValueRecord()

    def happened(self) -> list[tuple[int, str]]:
        """What it did of itself since the last call, as it does where it takes a drift for one: the event's number in the block that
        was learnt last, and what.
        """
        return []

    def tables(self) -> list[dict[str, Any]]:
        """What its report shows besides, as JSON: ``title``, ``columns``, ``rows`` and, where there are some, ``units`` of columns."""
        return []

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, besides `signature` and `values`."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """What of the state is no array. It holds `aside` under ``aside``."""

    @abstractmethod
    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where its parts do not fit together."""


class _Taken(NamedTuple):
    """What has become of events of a block, by their numbers in it."""

    found: list[tuple[int, NDArray[np.float64]]]
    """Of events on end, the first and the scores (n, classes)."""
    learnt: list[tuple[int, int]]
    """The numbers of the labels' classes, in the order in which they were learnt."""
    aside: dict[int, str]


class TableLearner(StreamLearner):
    """A rule at work on events.

    Parameters
    ----------
    rule
        The rule, with no inputs and classes yet.
    types
        Columns whose type is known before the first event.
    most_categories
        How many words of a column get an input of their own.
    most_late
        How many questions are kept for their labels.
    scaled
        Whether the rule is given numbers scaled, or as they are.
    """

    def __init__(
        self,
        rule: Rule,
        types: Mapping[str, ColumnType],
        *,
        most_categories: int,
        most_late: int,
        scaled: bool = True,
    ) -> None:
        self._rule = rule
        self._of_blocks = rule if isinstance(rule, BlockRule) else None
        self._rows = EventRows(types, most_categories=most_categories, scaled=scaled)
        self._late = LateLabels(most_late)
        self._classes: dict[str, int] = {}
        self.aside = {}

    @property
    def signature(self) -> EventSignature:
        return EventSignature(columns=self._rows.columns, classes=tuple(self._classes))

    @property
    def size(self) -> tuple[int, int]:
        return self._rows.width, len(self._classes)

    @property
    def doubts(self) -> list[str]:
        return [*map(crowded, self._rows.crowded), *many_classes(len(self._classes))]

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        whole = self._learn_whole(block)
        if whole is not None:
            table, numbers = whole
            if answered is not None:
                classes = np.array(numbers, np.int64)
                events = np.flatnonzero(classes >= 0)
                if len(events):
                    answered(Answers(events, table[events], classes[events]))
            return table
        taken = _Taken([], [], {})
        with self._threads():
            self._learn_parts(block, 0, taken)
        for _, reason in sorted(taken.aside.items()) if taken.aside else ():
            self.aside[reason] = self.aside.get(reason, 0) + 1
        table = self._table(len(block), taken.found)
        if answered is not None and taken.learnt:
            events, classes = np.array(taken.learnt, np.int64).T
            answered(Answers(events, table[events], classes))
        return table

    def _learn_whole(self, block: Block) -> tuple[NDArray[np.float64], list[int]] | None:
        """Learn a block at once: the scores, and the numbers of the labels' classes.

        None where it holds anything odd: then nothing has changed.
        """
        rule, count = self._of_blocks, len(block.times)
        if rule is None or block.broken or not count:
            return None
        if count == 1:
            if not (block.has_x.item() and block.has_y.item()):
                return None
            found = self._learn_one(rule, block)
            if found is not None:
                return found
        whole = self._rows.whole(block, learn=True)
        labels = None if whole is None else self._numbered(block)
        if labels is None or whole is None:
            return None
        numbers, new = labels
        known = len(self._classes)
        if new or whole.new:
            if not rule.fits(whole):
                return None
            self._rows.settle(whole, learn=True)
            self._classes.update(new)
        rule.grow(self._rows.width, len(self._classes))
        table = rule.take(whole.columns, count, whole.address, numbers, known)
        return None if table is None else (table, numbers)

    def _learn_one(self, rule: BlockRule, block: Block) -> tuple[NDArray[np.float64], list[int]] | None:
        """As `_learn_whole`, of one event with features and a label; None where anything of it is new, too."""
        number = self._classes.get(str(block.y.item()))
        found = None if number is None else self._rows.one(block)
        if number is None or found is None:
            return None
        columns, x = found
        numbers = [number]
        table = rule.take(columns, 1, x.buffer_info()[0], numbers, len(self._classes))
        return None if table is None else (table, numbers)

    def _learn_parts(self, block: Block, start: int, taken: _Taken) -> None:
        """Learn a block that cannot be learnt at once, or `start` events from its beginning: by halves, and few events one by one."""
        at_once = np.count_nonzero(block.has_x & block.has_y)
        if self._of_blocks is None or len(block) <= _FEW or at_once < _MOST * len(block):
            self._learn_each(block, start, taken)
            return
        middle = len(block) // 2
        for low, high in ((0, middle), (middle, len(block))):
            part = block.take(low, high)
            whole = self._learn_whole(part)
            if whole is None:
                self._learn_parts(part, start + low, taken)
                continue
            table, numbers = whole
            taken.found.append((start + low, table))
            taken.learnt.extend((event, number) for event, number in enumerate(numbers, start + low) if number >= 0)

    def _numbered(self, block: Block) -> tuple[list[int], dict[str, int]] | None:
        """The numbers of the labels' classes, -1 without one, and the classes that are new; None where one is no label, or comes late."""
        labels, known = [*map(str, block.y.tolist())], self._classes
        numbers: list[Any] = [*map(known.get, labels)]
        if b"\0" in block.has_y.tobytes():
            for event, (has, name) in enumerate(zip(block.has_y.tolist(), block.ids.tolist(), strict=True)):
                if not has and name:
                    return None
                if not has:
                    numbers[event] = -1
        new: dict[str, int] = {}
        if None in numbers:
            for event, label in enumerate(labels):
                if numbers[event] is None:
                    number = new.get(label)
                    if number is None:
                        if label.lower() in _NO_LABELS:
                            return None
                        number = new[label] = len(known) + len(new)
                    numbers[event] = number
        return numbers, new

    def _learn_each(self, block: Block, start: int, taken: _Taken) -> None:
        aside = dict(block.broken)
        labels, ids = read_labels(block, aside), block.ids.tolist()
        rule, rows, late = self._rule, self._rows, self._late
        for event, given in rows.rows(block, aside, learn=True):
            row, label = given, labels[event]
            if row is not None:
                rule.grow(rows.width, len(self._classes))
                scores = rule.scores(row)
                if label is None and ids[event]:
                    late.keep(ids[event], row, scores)
            elif label is None:
                continue
            else:
                kept = late.take(ids[event], rows.width, len(self._classes))
                if kept is None:
                    aside[event] = "a label of an unknown id"
                    continue
                row, scores = kept
            taken.found.append((start + event, scores[None]))
            if label is not None:
                known = self._classes.get(label)
                if known is None:
                    known = self._classes[label] = len(self._classes)
                    rule.grow(rows.width, len(self._classes))
                taken.learnt.append((start + event, known))
                rule.learn(row, known)
        for event, reason in aside.items():
            taken.aside[start + event] = reason

    def predict(self, block: Block) -> NDArray[np.float64]:
        if self._of_blocks is not None and not block.broken and self._classes:
            whole = self._rows.whole(block, learn=False)
            if whole is not None:
                self._rows.settle(whole, learn=False)
                table = self._of_blocks.ask(whole)
                if table is not None:
                    return table
        aside = dict(block.broken)
        rows = self._rows.rows(block, aside, learn=False)
        with self._threads():
            found = [(event, self._rule.scores(row)[None]) for event, row in rows if row is not None]
        return self._table(len(block), found)

    def _threads(self) -> AbstractContextManager[Any]:
        """One thread for products; where all are too small to be shared, nothing has to be done."""
        inputs, classes = self.size
        return one_thread() if self._rule.large or inputs * max(classes, 1) >= _SHARED else nullcontext()

    def raise_rate(self, factor: float) -> bool:
        return self._rule.raise_rate(factor)

    def reset_head(self) -> bool:
        return self._rule.reset_head()

    def head(self) -> tuple[Head, tuple[RowColumn, ...]] | None:
        head = self._rule.head()
        return None if head is None else (head, self._rows.layout)

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        late = self._late.arrays(self._rows.width, len(self._classes))
        return {**self._rows.arrays(), **late, **self._rule.arrays()}

    def values(self) -> dict[str, Any]:
        unmet = self._rows.unmet
        return {
            **({"unmet": unmet} if unmet else {}),
            "inputs": self._rows.width,
            "late_ids": self._late.ids,
            "given_up": self._late.given_up,
            "aside": dict(self.aside),
        }

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._classes = {name: place for place, name in enumerate(signature.classes)}
        if len(self._classes) < len(signature.classes):
            raise ValueError("a class stands there twice")
        inputs, classes = int(values["inputs"]), len(self._classes)
        self._rows.restore(signature.columns, arrays, inputs, values.get("unmet", []))
        if (arrays["late_rows"].shape[1:], arrays["late_scores"].shape[1:]) != ((inputs,), (classes,)):
            raise ValueError(f"questions of another number than {inputs} inputs and {classes} classes")
        self._late.restore(values["late_ids"], arrays, int(values["given_up"]))
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}
        self._rule.restore(arrays)
        scores = self._rule.scores(np.zeros(inputs))
        if scores.shape != (classes,) or not np.isfinite(scores).all():
            raise ValueError(f"scores of shape {scores.shape} for {classes} classes, or NaN among them")

    # -- private

    def _table(self, count: int, found: list[tuple[int, NDArray[np.float64]]]) -> NDArray[np.float64]:
        table = np.zeros((count, len(self._classes)))
        if sum(len(scores) for _, scores in found) < count:
            table.fill(np.nan)
        for start, scores in found:
            rows = table[start : start + len(scores)]
            rows[:, : scores.shape[1]] = scores
            rows[:, scores.shape[1] :] = 0.0
        return table


def crowded(name: str) -> str:
    """What to say of a column that has met more words than it may."""
    return (
        f"column '{short(name)}' has more words than get an input of their own; later ones share one (raise categories, or "
        "leave the column out of features where each event has another word)"
    )


def many_classes(count: int) -> list[str]:
    """What to say of so many classes."""
    if count <= _MANY_CLASSES:
        return []
    return [
        f"there are more than {_MANY_CLASSES} classes, and each takes memory and time; where the target is a quantity, learn values, or "
        "make ranges of it"
    ]


def read_labels(block: Block, aside: dict[int, str]) -> list[str | None]:
    """The label of each event as text; None without one. What is no label is added to the events that are set aside."""
    labels = [str(label) if has else None for label, has in zip(block.y.tolist(), block.has_y.tolist(), strict=True)]
    for event, label in enumerate(labels):
        if label is not None and label.lower() in _NO_LABELS:
            aside[event] = "an empty, NaN or infinite label"
    return labels


_NO_LABELS = frozenset(("", "nan", *(sign + word for sign in ("", "+", "-") for word in ("inf", "infinity"))))
