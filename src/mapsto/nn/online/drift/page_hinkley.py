"""The Page-Hinkley test: an alarm where the deviations from the mean so far add up, up or down.

``m_t = α m_{t-1} + (x_t - x̄_t ∓ δ)``, and a drift where it is more than λ above its least value (or below its largest) (Page, "Continuous
Inspection Schemes", 1954).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mapsto.nn.online.drift.detector import Detector

__all__ = ["PageHinkley"]


class PageHinkley(Detector):
    """A cumulative sum in both directions.

    Parameters
    ----------
    delta
        δ, the change of the mean that is no drift.
    threshold
        λ.
    alpha
        α, by which older deviations count less.
    grace
        Values before it looks.

    >>> test = PageHinkley(threshold=20)
    >>> [n for n in range(2000) if test.update(float(n % 10 < (2 if n < 1000 else 6)))]
    [1045]
    """

    name: ClassVar[str] = "page_hinkley"

    def __init__(
        self, *, delta: float = 0.005, threshold: float = 50.0, alpha: float = 0.9999, grace: int = 30
    ) -> None:
        self._delta, self._threshold, self._alpha, self._grace = delta, threshold, alpha, grace
        self._begin()

    def _begin(self) -> None:
        self._count, self._mean, self._up, self._down = 0, 0.0, 0.0, 0.0
        self._least, self._largest = np.inf, -1.0

    def update(self, value: float) -> bool:
        self._count += 1
        self._mean += (value - self._mean) / self._count
        away = value - self._mean
        up = self._up = self._alpha * self._up + away - self._delta
        down = self._down = self._alpha * self._down + away + self._delta
        self._least = min(self._least, up)
        self._largest = max(self._largest, down)
        if self._count < self._grace:
            return False
        rose, fell = up - self._least, self._largest - down
        if rose <= self._threshold and fell <= self._threshold:
            return False
        self.change = abs(away) if rose > self._threshold else -abs(away)
        self._begin()
        return True

    def state(self) -> dict[str, Any]:
        values = (self._count, self._mean, self._up, self._down, self._least, self._largest, self.change)
        return {"values": np.array(values, np.float64)}

    def restore(self, state: Mapping[str, Any]) -> None:
        count, self._mean, self._up, self._down, self._least, self._largest, self.change = state["values"].tolist()
        self._count = int(count)
