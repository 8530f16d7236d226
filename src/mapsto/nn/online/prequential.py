"""The record of a learner that is tested on each event before it learns from it, beside what answers without a model would have come to.

Accuracy of all events, of the last 1000 and faded, ``Σ αⁿ⁻ⁱ rᵢ / Σ αⁿ⁻ⁱ`` with α = 0.999 (Gama, Sebastião and Rodrigues, "On Evaluating
Stream Learning Algorithms", 2013); ``κ = (p₀ − pₑ) / (1 − pₑ)``, and κ temporal, in which pₑ is the accuracy of the label before
(Žliobaitė et al., "Evaluation Methods and Decision Theory for Classification of Streaming Data with Temporal Dependence", 2015).

Every sum goes on event by event, so that how many events a block holds decides nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.stretches import Stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block
    from mapsto.nn.online.learning import Answers

__all__ = ["ClassRecord", "NumberRecord", "Record", "ValueRecord"]

WINDOW = 1000
"""Labels of the windowed figures."""
FADING = 0.999
"""α."""
_LEAST = 1e-15
"""The least probability in a log loss."""
_MOST_ASKED_BEFORE = 10_000
_MOST_CLASSES = 100
"""So many classes are told of each, those with most labels."""


class Record:
    """What was answered and what was right, over the labels in the order in which they came. Its state is flat."""

    main: str
    """The figure that says most."""
    better: int
    """1 where more of it is better, -1 where less is."""

    def __init__(self, columns: int) -> None:
        self.labels = 0
        """Labels that were learnt."""
        self.late = 0
        """Of these the ones that came after their questions: a baseline by the label before knew more than the learner."""
        self.blind = 0
        """Questions that were asked before any label was known. Of classes they count as wrong, and in no log loss; of values nobody could
        have said anything, and they count in no figure."""
        self._asked_before: list[str] = []
        """The ids of questions that were asked before any label was known, of values."""
        self._recent = np.zeros((0, columns))
        """Of the last labels (≤ WINDOW): the figures of the learner and of both baselines."""
        self._faded = [0.0, 0.0]
        """Σ αⁿ⁻ⁱ rᵢ and Σ αⁿ⁻ⁱ."""
        self.stretches = Stretches()

    @abstractmethod
    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        """Count the answers to a block, or a part of one, whose first event is number `start` from 0; gives the error of each (n,)."""

    @abstractmethod
    def row(self) -> dict[str, float]:
        """What a row of the log holds, of the labels since the last row and of all; empty where there was no label."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Figures of all labels; empty where there was none."""

    @abstractmethod
    def baselines(self) -> dict[str, float]:
        """The same labels answered without a model: name → the figure that is called `main`."""

    def classes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Of each class its labels, recall and the event of its first label, most labels first; empty for values."""
        return []

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """The state."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from another's state."""

    def asked(self, block: Block, answers: Sequence[Answers]) -> None:
        """Told of each block before its answers are counted."""

    # -- for both

    def _remember(self, block: Block, answers: Answers, rows: NDArray[np.float64]) -> None:
        """Take in the figures (n, columns) of the labels of a block, without those that count in none."""
        self.labels += len(answers.labels)
        self.late += int((~block.has_x[answers.events]).sum())
        self._recent = np.concatenate((self._recent, rows))[-WINDOW:]
        sums, weight = self._faded
        for value in rows[:, 0].tolist():
            sums = FADING * sums + value
            weight = FADING * weight + 1.0
        self._faded = [sums, weight]

    @property
    def _windowed(self) -> list[float]:
        return self._recent.mean(0).tolist()

    def _common(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "late": self.late,
            "blind": self.blind,
            "recent": self._recent,
            "faded": list(self._faded),
            "stretches": self.stretches.snapshot(),
            **({"asked_before": list(self._asked_before)} if self._asked_before else {}),
        }

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.labels, self.late, self.blind = (int(state[name]) for name in ("labels", "late", "blind"))
        self._recent = state["recent"]
        self._faded = [float(value) for value in state["faded"]]
        self.stretches.restore(state["stretches"])
        self._asked_before = list(state.get("asked_before", ()))


class NumberRecord(Record):
    """Of numbers: what was asked before any label was known is told apart."""

    def asked(self, block: Block, answers: Sequence[Answers]) -> None:
        if self.labels:
            return
        first = min((int(each.events[0]) for each in answers if len(each.events)), default=len(block))
        ids = [str(name) for name, has in zip(block.ids[:first], block.has_x[:first], strict=True) if has and name]
        self._asked_before = [*self._asked_before, *ids][-_MOST_ASKED_BEFORE:]

    def _counted(self, block: Block, answers: Answers) -> NDArray[np.bool_]:
        """Which of the answers (n,) were given when a label was known. Counts the others."""
        known = np.ones(len(answers.labels), np.bool_)
        if not self.labels:
            known[0] = False
        if self._asked_before:
            before = set(self._asked_before)
            for place, event in enumerate(answers.events.tolist()):
                if not block.has_x[event] and str(block.ids[event]) in before:
                    known[place] = False
                    before.discard(str(block.ids[event]))
            self._asked_before = [name for name in self._asked_before if name in before]
        self.blind += int((~known).sum())
        return known


class ClassRecord(Record):
    """Of classes. Baselines: the label before (`no change`), and the class that came most often so far (`majority`).

    >>> from mapsto.nn.online.learning import Answers
    >>> from mapsto.data.streams.sea import Sea
    >>> record, block = ClassRecord(), next(Sea().open(size=3))
    >>> answers = Answers(np.arange(3), np.array([[0.0, 0.0], [1.0, 0.0], [0.2, 0.8]]), np.array([0, 0, 1]))
    >>> record.see(0, block, answers, ("no", "yes")).tolist()
    [1.0, 0.0, 0.0]
    >>> {name: round(value, 1) for name, value in record.baselines().items()}
    {'no change': 33.3, 'majority': 33.3}
    """

    main, better = "accuracy", 1

    def __init__(self, known: int = 0) -> None:
        super().__init__(3)
        self._counts = np.zeros((3, known), np.int64)
        """(3, K): labels, right answers, and answers of each class."""
        self._first = [0] * known
        """The event of each class's first label, counted from 1; 0 where it was known before."""
        self._right = [0, 0, 0]
        """Right answers of the learner and of both baselines."""
        self._since = [0, 0]
        """Labels and right answers since the last row."""
        self._loss = 0.0
        self._last = self._leader = -1
        """The class of the last label, and the one that came most often."""

    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        scores, labels = answers.scores, answers.labels
        self._grow(len(classes))
        best = scores.argmax(1)
        top = scores[np.arange(len(labels)), best]
        given = top > 0  # all 0: no class was known when it was asked
        right = (best == labels) & given
        rows = np.empty((len(labels), 3))
        rows[:, 0] = right
        rows[:, 1] = np.concatenate(([self._last], labels[:-1])) == labels
        rows[:, 2] = self._most(start, answers.events.tolist(), labels.tolist())
        self._last = int(labels[-1])
        self.blind += int((~given).sum())
        self._lose(scores[np.arange(len(labels)), labels][given].tolist())
        size = len(classes)
        self._counts[1] += np.bincount(labels[right], minlength=size)
        self._counts[2] += np.bincount(best[given], minlength=size)
        self._right = [have + int(more) for have, more in zip(self._right, rows.sum(0), strict=True)]
        self._since = [self._since[0] + len(labels), self._since[1] + int(right.sum())]
        self._remember(block, answers, rows)
        errors = 1.0 - rows[:, 0]

        def told(place: int) -> dict[str, Any]:
            answer = classes[best[place]] if given[place] else None
            return {"answer": answer, "label": classes[labels[place]], "confidence": float(top[place])}

        self.stretches.see(start, block, answers.events, errors, np.where(right, 0.0, np.maximum(top, _LEAST)), told)
        return errors

    def row(self) -> dict[str, float]:
        if not self.labels:
            return {}
        labels, right = self._since
        self._since = [0, 0]
        windowed, no_change, majority = self._windowed
        figures = self.figures()
        return {
            **({"accuracy": 100 * right / labels} if labels else {}),
            "mean_accuracy": figures.pop("accuracy"),
            "window_accuracy": 100 * windowed,
            "window_no_change": 100 * no_change,
            "window_majority": 100 * majority,
            **{name: value for name, value in figures.items() if name != "window_accuracy"},
        }

    def figures(self) -> dict[str, float]:
        if not self.labels:
            return {}
        right, no_change, _ = (count / self.labels for count in self._right)
        chance = float(self._counts[0] @ self._counts[2]) / self.labels**2
        found = {
            "accuracy": 100 * right,
            "window_accuracy": 100 * self._windowed[0],
            "faded_accuracy": 100 * self._faded[0] / self._faded[1],
            **({"log_loss": self._loss / (self.labels - self.blind)} if self.labels > self.blind else {}),
        }
        if chance < 1:
            found["kappa"] = (right - chance) / (1 - chance)
        if no_change < 1:
            found["kappa_temporal"] = (right - no_change) / (1 - no_change)
        return found

    def baselines(self) -> dict[str, float]:
        if not self.labels:
            return {}
        return {
            name: 100 * count / self.labels
            for name, count in zip(("no change", "majority"), self._right[1:], strict=True)
        }

    def classes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = [
            {"class": name, "labels": count, "recall": 100 * right / count if count else None, "first": self._first[k]}
            for k, (name, (count, right, _)) in enumerate(zip(names, self._counts.T.tolist(), strict=False))
        ]
        return sorted(told, key=lambda each: -each["labels"])[:_MOST_CLASSES]

    def snapshot(self) -> dict[str, Any]:
        return {
            **self._common(),
            "counts": self._counts,
            "first": list(self._first),
            "right": list(self._right),
            "since": list(self._since),
            "loss": self._loss,
            "last": [self._last, self._leader],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take_up(state)
        self._counts = state["counts"]
        self._first, self._right, self._since = (list(state[name]) for name in ("first", "right", "since"))
        self._loss = float(state["loss"])
        self._last, self._leader = state["last"]

    def _grow(self, size: int) -> None:
        more = size - self._counts.shape[1]
        if more > 0:
            self._counts = np.pad(self._counts, ((0, 0), (0, more)))
            self._first += [-1] * more

    def _most(self, start: int, events: Sequence[int], labels: Sequence[int]) -> list[bool]:
        """Whether each label was the class that came most often before it. Counts the labels."""
        found: list[bool] = []
        counts, leader, first = self._counts[0].tolist(), self._leader, self._first
        for event, label in zip(events, labels, strict=True):
            found.append(label == leader)
            counts[label] += 1
            if leader < 0 or counts[label] > counts[leader]:
                leader = label
            if first[label] < 0:
                first[label] = start + event + 1
        self._counts[0], self._leader = counts, leader
        return found

    def _lose(self, given: Sequence[float]) -> None:
        loss = self._loss
        for probability in given:
            loss -= math.log(max(probability, _LEAST))
        self._loss = loss


class ValueRecord(NumberRecord):
    """Of numbers. Baselines: the value before (`last value`), and the mean of all so far (`mean`).

    >>> from mapsto.nn.online.learning import Answers
    >>> from mapsto.data.streams.sea import Sea
    >>> record, block = ValueRecord(), next(Sea().open(size=3))
    >>> errors = record.see(0, block, Answers(np.arange(3), np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 2.0])), ())
    >>> errors.tolist(), record.figures()["mae"], record.figures()["r2"], record.blind
    ([nan, 2.0, 0.0], 1.0, -2.0, 1)
    >>> record.baselines()
    {'last value': 1.5, 'mean': 1.0}
    """

    main, better = "mae", -1

    def __init__(self) -> None:
        super().__init__(3)
        self._sums = [0.0, 0.0, 0.0, 0.0]
        """Of absolute errors: of the learner and of both baselines; of the learner's squared errors."""
        self._since = [0.0, 0.0]
        """Labels and absolute errors since the last row."""
        self._last = self._mean = self._spread = 0.0
        """The last value, the mean of all, and the sum of their squared distances from it (Welford, 1962)."""

    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        answered, labels = answers.scores[:, 0], answers.labels
        known = self._counted(block, answers)
        rows = np.empty((len(labels), 3))
        rows[:, 0] = np.abs(answered - labels)
        rows[:, 1] = np.abs(np.concatenate(([self._last], labels[:-1])) - labels)
        rows[:, 2] = np.abs(np.array(self._means(labels.tolist())) - labels)
        self._last = float(labels[-1])
        errors = np.where(known, rows[:, 0], np.nan)
        rows, events, answered, labels = rows[known], answers.events[known], answered[known], labels[known]
        squares = rows[:, :1] * rows[:, :1]
        self._sums = _added(self._sums, np.concatenate((rows, squares), 1))
        self._since = [self._since[0] + len(labels), *_added(self._since[1:], rows[:, :1])]
        self._remember(block, answers, rows)

        def told(place: int) -> dict[str, Any]:
            return {"answer": float(answered[place]), "label": float(labels[place])}

        self.stretches.see(start, block, events, rows[:, 0], rows[:, 0], told)
        return errors

    def row(self) -> dict[str, float]:
        if self.labels == self.blind:
            return {}
        labels, errors = self._since
        self._since = [0.0, 0.0]
        windowed, last, mean = self._windowed
        figures = self.figures()
        return {
            **({"mae": errors / labels} if labels else {}),
            "mean_mae": figures.pop("mae"),
            "window_mae": windowed,
            "window_last_value": last,
            "window_mean": mean,
            **{name: value for name, value in figures.items() if name != "window_mae"},
        }

    def figures(self) -> dict[str, float]:
        count = self.labels - self.blind
        if not count:
            return {}
        found = {
            "mae": self._sums[0] / count,
            "window_mae": self._windowed[0],
            "faded_mae": self._faded[0] / self._faded[1],
            "rmse": math.sqrt(self._sums[3] / count),
        }
        if self._spread > 0:
            found["r2"] = 1 - (self._sums[3] / count) / (self._spread / self.labels)
        return found

    def baselines(self) -> dict[str, float]:
        count = self.labels - self.blind
        if not count:
            return {}
        return {name: total / count for name, total in zip(("last value", "mean"), self._sums[1:3], strict=True)}

    def snapshot(self) -> dict[str, Any]:
        return {
            **self._common(),
            "sums": list(self._sums),
            "since": list(self._since),
            "last": [self._last, self._mean, self._spread],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take_up(state)
        self._sums, self._since = list(state["sums"]), list(state["since"])
        self._last, self._mean, self._spread = state["last"]

    def _means(self, labels: Sequence[float]) -> list[float]:
        """The mean of all values before each. Takes the values in."""
        found: list[float] = []
        count, mean, spread = self.labels, self._mean, self._spread
        for label in labels:
            found.append(mean)
            count += 1
            away = label - mean
            mean += away / count
            spread += away * (label - mean)
        self._mean, self._spread = mean, spread
        return found


def _added(sums: Sequence[float], rows: NDArray[np.float64]) -> list[float]:
    """Sums (columns) that go on over rows (n, columns), one after the other."""
    return np.add.accumulate(np.concatenate((np.array(sums)[None], rows)))[-1].tolist()
