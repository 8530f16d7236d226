"""ADWIN: a window that grows while its mean stays, and drops its oldest part where two parts of it have different means.

The window of n values is kept as buckets of 1, 2, 4, … values, at most `max_buckets` of a size, so that memory and time are O(log n). Two
parts of n₀ and n₁ values differ where ``|μ₀ - μ₁| > √(2 σ² ln(2 ln n / δ) / m) + (2 / 3 m) ln(2 ln n / δ)`` with
``1/m = 1/(n₀ - l + 1) + 1/(n₁ - l + 1)`` and the least length l of a part (Bifet and Gavaldà, "Learning from Time-Changing Data with
Adaptive Windowing", 2007; l as in MOA).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mapsto.nn.online.drift.detector import Detector

__all__ = ["Adwin"]


class Adwin(Detector):
    """Adaptive windowing, for values of about 0 to 1. While what is left of older values is found out, a drift is told several times.

    Parameters
    ----------
    delta
        δ, the share of false alarms that is allowed.
    clock
        Values after which it looks for a drift.
    max_buckets
        Buckets of a size.
    least
        l, values of a part.
    grace
        Values of the window before it looks.

    >>> adwin = Adwin()
    >>> [n for n in range(2000) if adwin.update(float(n % 10 < (2 if n < 1000 else 6)))]
    [1055, 1119, 1183]
    >>> round(adwin.change, 1), adwin.width < 1200
    (0.4, True)
    """

    name: ClassVar[str] = "adwin"

    def __init__(
        self, *, delta: float = 0.002, clock: int = 32, max_buckets: int = 5, least: int = 5, grace: int = 10
    ) -> None:
        self._delta, self._clock, self._most, self._least, self._grace = delta, clock, max_buckets, least, grace
        self._rows: list[tuple[list[float], list[float]]] = [([], [])]
        """Of buckets of 1, 2, 4, … values, oldest first: their sums, and their sums of squared deviations."""
        self._ticks = 0
        self.width, self.total, self._squares = 0, 0.0, 0.0

    @property
    def mean(self) -> float:
        """Of the window; 0 of an empty one."""
        return self.total / self.width if self.width else 0.0

    def update(self, value: float) -> bool:
        width = self.width
        if width:
            away = value - self.total / width
            self._squares += width * away * away / (width + 1)
        self.width = width + 1
        self.total += value
        sums, squares = self._rows[0]
        sums.append(value)
        squares.append(0.0)
        if len(sums) > self._most:
            self._compress()
        self._ticks += 1
        return self._ticks % self._clock == 0 and self.width > self._grace and self._cut()

    def _compress(self) -> None:
        """Put the two oldest buckets of a size together, where there are too many."""
        size = 1
        for row, (sums, squares) in enumerate(self._rows):
            if len(sums) <= self._most:
                return
            if row + 1 == len(self._rows):
                self._rows.append(([], []))
            apart = (sums[0] - sums[1]) / size
            larger = self._rows[row + 1]
            larger[0].append(sums[0] + sums[1])
            larger[1].append(squares[0] + squares[1] + apart * apart * size / 2)
            del sums[:2], squares[:2]
            size *= 2

    def _cut(self) -> bool:
        """Drop the oldest bucket as long as two parts of the window differ; whether any was dropped."""
        apart = self._difference()
        if apart is None:
            return False
        self.change = apart
        while self.width > 1 and apart is not None:
            self._drop()
            apart = self._difference()
        return True

    def _difference(self) -> float | None:
        """By how much the newer of two parts of the window that differ is above the older one; None where no two do."""
        n, least = self.width, self._least
        log = math.log(2 * math.log(n) / self._delta) if n > 2 else 0.0
        spread, rest = 2 * log * self._squares / n, 2 / 3 * log
        older, older_sum, total = 0, 0.0, self.total
        for row in range(len(self._rows) - 1, -1, -1):
            size = 1 << row
            for bucket in self._rows[row][0]:
                older += size
                older_sum += bucket
                newer = n - older
                if newer < least:
                    return None
                if older < least:
                    continue
                apart = (total - older_sum) / newer - older_sum / older
                share = 1 / (older - least + 1) + 1 / (newer - least + 1)
                if abs(apart) > math.sqrt(spread * share) + rest * share:
                    return apart
        return None

    def _drop(self) -> None:
        """Drop the oldest bucket."""
        row = max(place for place, (sums, _) in enumerate(self._rows) if sums)
        sums, squares = self._rows[row]
        size, bucket, deviations = 1 << row, sums.pop(0), squares.pop(0)
        self.width -= size
        self.total -= bucket
        if self.width:
            apart = bucket / size - self.total / self.width
            self._squares -= deviations + apart * apart * size * self.width / (size + self.width)
            self._squares = max(self._squares, 0.0)
        else:
            self._squares = 0.0

    def state(self) -> dict[str, Any]:
        return {
            "buckets": np.array([len(sums) for sums, _ in self._rows], np.int64),
            "sums": np.array([each for sums, _ in self._rows for each in sums], np.float64),
            "squares": np.array([each for _, squares in self._rows for each in squares], np.float64),
            "values": np.array([self.total, self._squares, self.change], np.float64),
            "ticks": self._ticks,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        counts, sums, squares = (state[name].tolist() for name in ("buckets", "sums", "squares"))
        if not len(sums) == len(squares) == sum(counts):
            raise ValueError(f"{len(sums)} and {len(squares)} sums of {sum(counts)} buckets")
        self._rows, at = [], 0
        for count in counts:
            self._rows.append((sums[at : at + count], squares[at : at + count]))
            at += count
        self.width = sum(count << row for row, count in enumerate(counts))
        self.total, self._squares, self.change = state["values"].tolist()
        self._ticks = int(state["ticks"])
