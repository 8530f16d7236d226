"""Questions whose labels are yet to come: kept by id, at most so many, the oldest given up first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LateLabels"]


class LateLabels:
    """What is kept of a question until its label comes: its row and the scores that it was given.

    Rows grow with the inputs, scores with the classes; what was kept before is filled up with zeros.

    >>> late = LateLabels(2)
    >>> for number in range(3):
    ...     late.keep(f"q{number}", np.ones(2) * number, np.ones(1))
    >>> late.take("q0", 2, 1) is None, late.take("q2", 3, 1)[0].tolist()
    (True, [2.0, 2.0, 0.0])
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self.given_up = 0
        """Questions that made room for later ones."""

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, name: str, row: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        """Keep a question; a later one of the same id takes its place."""
        self._kept.pop(name, None)
        self._kept[name] = (row.copy(), scores.copy())
        self._give_up()

    def bound(self, most: int) -> None:
        """Keep at most so many from now on."""
        self._most = most
        self._give_up()

    def take(self, name: str, inputs: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The row (inputs,) and the scores (classes,) of a question, which is then no longer kept; None where it is not."""
        kept = self._kept.pop(name, None)
        return None if kept is None else (_filled(kept[0], inputs), _filled(kept[1], classes))

    def arrays(self, inputs: int, classes: int) -> dict[str, NDArray[Any]]:
        """All rows and scores as two arrays, in the order in which they came."""
        rows = [_filled(row, inputs) for row, _ in self._kept.values()]
        scores = [_filled(score, classes) for _, score in self._kept.values()]
        return {
            "late_rows": np.array(rows, np.float64).reshape(len(rows), inputs),
            "late_scores": np.array(scores, np.float64).reshape(len(scores), classes),
        }

    @property
    def ids(self) -> list[str]:
        """Of the questions that are kept, in order."""
        return list(self._kept)

    def restore(self, ids: list[str], arrays: Mapping[str, NDArray[Any]], given_up: int) -> None:
        """Go on from `ids`, `arrays` and `given_up` of another, which may have kept more. Raises `ValueError` where these do not fit."""
        rows, scores = arrays["late_rows"], arrays["late_scores"]
        if not len(rows) == len(scores) == len(ids) == len(set(ids)):
            raise ValueError(f"{len(ids)} questions with {len(rows)} rows and {len(scores)} scores")
        if not (np.isfinite(rows).all() and np.isfinite(scores).all()):
            raise ValueError("a question's row or scores hold NaN")
        self._kept = {name: (rows[place].copy(), scores[place].copy()) for place, name in enumerate(ids)}
        self.given_up = given_up
        self._give_up()

    def _give_up(self) -> None:
        """Let the oldest go where there are too many."""
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
            self.given_up += 1


def _filled(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    if len(values) == length:
        return values
    filled = np.zeros(length)
    filled[: len(values)] = values
    return filled
