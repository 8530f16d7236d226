"""The live learner of tables of events: it answers first and learns after, and keeps what a label that comes late will need.

What an online learner says itself is its rule. This file does the rest: events as rows that grow, classes that grow, late labels,
events that are set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Block, ColumnType, EventSignature
from mapsto.nn.online.event_rows import EventRows
from mapsto.nn.online.late_labels import LateLabels
from mapsto.nn.online.rule import Rule
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "TableLearner"]

_MANY_CLASSES = 1000

Answered = Callable[[int, "NDArray[np.float64]", int], None]
"""(the event's number in the block, its scores before its label was seen, its class) as each label is learnt."""


class TableLearner:
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
    """

    def __init__(self, rule: Rule, types: Mapping[str, ColumnType], *, most_categories: int, most_late: int) -> None:
        self._rule = rule
        self._rows = EventRows(types, most_categories=most_categories)
        self._late = LateLabels(most_late)
        self._classes: dict[str, int] = {}
        self.aside: dict[str, int] = {}
        """Why events were set aside, and how many."""

    @property
    def signature(self) -> EventSignature:
        """What has been met so far."""
        return EventSignature(columns=self._rows.columns, classes=tuple(self._classes))

    @property
    def size(self) -> tuple[int, int]:
        """Inputs and classes."""
        return self._rows.width, len(self._classes)

    @property
    def doubts(self) -> list[str]:
        """What was met that an online learner of classes makes little of, each with what to do about it."""
        found = [
            f"column '{short(name)}' has more words than get an input of their own; later ones share one (raise categories, or "
            "leave the column out of features where each event has another word)"
            for name in self._rows.crowded
        ]
        if len(self._classes) > _MANY_CLASSES:
            found.append(
                f"there are more than {_MANY_CLASSES} classes, and each takes memory and time; where the target is a quantity, "
                "make ranges of it"
            )
        return found

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        """See `mapsto.kinds.model.Learner`; `answered` is told of each label as it is learnt."""
        aside = dict(block.broken)
        labels, ids = self._labels(block, aside), block.ids.tolist()
        found: list[tuple[int, NDArray[np.float64]]] = []
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
            found.append((event, scores))
            if label is not None:
                known = self._classes.get(label)
                if known is None:
                    known = self._classes[label] = len(self._classes)
                    rule.grow(rows.width, len(self._classes))
                if answered is not None:
                    answered(event, scores, known)
                rule.learn(row, known)
        for _, reason in sorted(aside.items()) if aside else ():
            self.aside[reason] = self.aside.get(reason, 0) + 1
        return self._table(len(block), found)

    def predict(self, block: Block) -> NDArray[np.float64]:
        """See `mapsto.kinds.model.Learner`."""
        aside = dict(block.broken)
        rows = self._rows.rows(block, aside, learn=False)
        found = [(event, self._rule.scores(row)) for event, row in rows if row is not None]
        return self._table(len(block), found)

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, besides `signature` and `values`."""
        late = self._late.arrays(self._rows.width, len(self._classes))
        return {**self._rows.arrays(), **late, **self._rule.arrays()}

    def values(self) -> dict[str, Any]:
        """What of the state is no array."""
        unmet = self._rows.unmet
        return {
            **({"unmet": unmet} if unmet else {}),
            "inputs": self._rows.width,
            "late_ids": self._late.ids,
            "given_up": self._late.given_up,
            "aside": dict(self.aside),
        }

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where its parts do not fit together."""
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

    @staticmethod
    def _labels(block: Block, aside: dict[int, str]) -> list[str | None]:
        """The label of each event as text; None without one."""
        labels = [
            str(label) if has else None for label, has in zip(block.y.tolist(), block.has_y.tolist(), strict=True)
        ]
        for event, label in enumerate(labels):
            if label is not None and label.lower() in _NO_LABELS:
                aside[event] = "an empty, NaN or infinite label"
        return labels

    def _table(self, count: int, found: list[tuple[int, NDArray[np.float64]]]) -> NDArray[np.float64]:
        table = np.zeros((count, len(self._classes)))
        if len(found) < count:
            table[sorted({*range(count)} - {event for event, _ in found})] = np.nan
        for event, scores in found:
            table[event, : len(scores)] = scores
        return table


_NO_LABELS = frozenset(("", "nan", *(sign + word for sign in ("", "+", "-") for word in ("inf", "infinity"))))
