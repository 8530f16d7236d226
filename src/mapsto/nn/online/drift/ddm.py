"""DDM: the error rate of a learner falls while the concept stays, so that a rise well above its least value is a drift.

With the error rate p of n answers and ``s = √(p (1 - p) / n)``: a warning where ``p + s > p_min + 2 s_min``, a drift at ``3 s_min``, where
p_min and s_min are those of the least ``p + s`` so far (Gama, Medas, Castillo and Rodrigues, "Learning with Drift Detection", 2004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mapsto.nn.online.drift.detector import Detector

__all__ = ["Ddm"]


class Ddm(Detector):
    """Answers as 0 (right) and 1 (wrong). An error rate of 0 is no least value: after it, the first error would be a drift.

    Parameters
    ----------
    warning_level, drift_level
        How many s_min the rate may rise.
    grace
        Answers before it looks.

    >>> ddm, warned = Ddm(), []
    >>> for n in range(2000):
    ...     if ddm.update(float(n % 10 < (2 if n < 1000 else 6))):
    ...         print(n, warned[0])
    ...     warned += [n] if ddm.warning else []
    1063 1031
    """

    name: ClassVar[str] = "ddm"
    of_errors: ClassVar[bool] = True

    def __init__(self, *, warning_level: float = 2.0, drift_level: float = 3.0, grace: int = 30) -> None:
        self._warning_level, self._drift_level, self._grace = warning_level, drift_level, grace
        self._begin()

    def _begin(self) -> None:
        self._count, self._errors = 0, 0.0
        self._least_rate, self._least_spread = math.inf, 0.0
        self.warning = False

    def update(self, value: float) -> bool:
        self._count += 1
        self._errors += value
        rate = self._errors / self._count
        if self._count <= self._grace or not rate > 0:
            return False
        spread = math.sqrt(max(rate * (1 - rate), 0.0) / self._count)
        if rate + spread <= self._least_rate + self._least_spread:
            self._least_rate, self._least_spread = rate, spread
        rise = rate + spread - self._least_rate
        if rise > self._drift_level * self._least_spread:
            self.change = rate - self._least_rate
            self._begin()
            return True
        self.warning = rise > self._warning_level * self._least_spread
        return False

    def state(self) -> dict[str, Any]:
        values = (self._count, self._errors, self._least_rate, self._least_spread, self.change, self.warning)
        return {"values": np.array(values, np.float64)}

    def restore(self, state: Mapping[str, Any]) -> None:
        count, self._errors, self._least_rate, self._least_spread, self.change, warning = state["values"].tolist()
        self._count, self.warning = int(count), bool(warning)
