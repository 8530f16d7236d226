"""Recall of each class over the first labels that it had and over the last: what was learnt of it later, or forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.prequential import ClassRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block
    from mapsto.nn.online.learning import Answers

__all__ = ["ForgettingRecord"]

STRETCH = 50
"""Labels of a class."""


class ForgettingRecord(ClassRecord):
    """The record of classes, with recall by when their labels came, in stretches of fifty.

    >>> from mapsto.nn.online.learning import Answers
    >>> from mapsto.data.streams.sea import Sea
    >>> record, block = ForgettingRecord(), next(Sea().open(size=100))
    >>> scores = np.where(np.arange(100)[:, None] < 50, [[0.9, 0.1]], [[0.1, 0.9]])
    >>> _ = record.see(0, block, Answers(np.arange(100), scores, np.zeros(100, np.int64)), ("no", "yes"))
    >>> told = record.classes(("no", "yes"))[0]
    >>> told["early"], told["late"], told["last"]
    (100.0, 0.0, 100)
    """

    def __init__(self, known: int = 0) -> None:
        super().__init__(known)
        self._parts = np.zeros((0, 7), np.int64)
        """(K, 7) of each class: labels and right answers of its first stretch, of its last whole one and of the present one; its last
        event."""

    def see(self, start: int, block: Block, answers: Answers, classes: Sequence[str]) -> NDArray[np.float64]:
        errors = super().see(start, block, answers, classes)
        if len(classes) > len(self._parts):
            self._parts = np.pad(self._parts, ((0, len(classes) - len(self._parts)), (0, 0)))
        for event, label, error in zip(answers.events.tolist(), answers.labels.tolist(), errors.tolist(), strict=True):
            part, right = self._parts[label], int(error == 0)
            if part[0] < STRETCH:
                part[0:2] += (1, right)
            part[4:6] += (1, right)
            if part[4] == STRETCH:
                part[2:4] = part[4:6]
                part[4:6] = 0
            part[6] = start + event + 1
        return errors

    def classes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        places = {name: place for place, name in enumerate(names)}
        found: list[dict[str, Any]] = []
        for each in super().classes(names):
            place = places[each["class"]]
            part = self._parts[place].tolist() if place < len(self._parts) else [0] * 7
            labels, right = part[2:4] if part[2] else part[4:6]
            early = 100 * part[1] / part[0] if part[0] else None
            late = 100 * right / labels if labels else None
            found.append({**each, "early": early, "late": late, "last": part[6]})
        return found

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "parts": self._parts.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._parts = np.array(state["parts"])
