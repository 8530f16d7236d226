"""What is to be best: accuracy less what the model's bytes cost, or accuracy among models within a limit.

``points = accuracy − 3 · max(0, log₁₀(bytes / 100 kB))``, accuracy in percent: a model of a tenth of the bytes may lose three points, and
below 100 kB, where a model fits nearly anywhere, bytes cost nothing. With a limit of bytes points are the accuracy, and a model beyond
the limit counts as a run that failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import SpecError

__all__ = ["Goal"]

_UNIT = 1e5
"""Bytes."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What recipes are ranked by.

    >>> round(Goal().points(90.0, 1e6), 2), Goal(most_bytes=5e5).points(90.0, 1e6)
    (87.0, None)
    """

    most_bytes: float | None = None
    per_decade: float = 3.0
    """Points that ten times the bytes cost, where there is no limit."""

    def __post_init__(self) -> None:
        if self.most_bytes is not None and not (self.most_bytes > 0 and math.isfinite(self.most_bytes)):
            raise SpecError(f"a limit of {self.most_bytes} bytes", where="--limit", hint="as in --limit bytes=200kB")

    def points(self, accuracy: float, size: float) -> float | None:
        """Points of a run; None where it is beyond the limit."""
        if self.most_bytes is not None:
            return accuracy if size <= self.most_bytes else None
        return accuracy - self.per_decade * math.log10(max(size, _UNIT) / _UNIT)

    def of(self, accuracy: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the runs of one task, (R,): NaN stays, and what failed (−inf) or is beyond the limit is a point below the worst."""
        with np.errstate(invalid="ignore"):
            if self.most_bytes is not None:
                found = np.where(size <= self.most_bytes, accuracy, np.where(np.isnan(accuracy), np.nan, -np.inf))
            else:
                found = accuracy - self.per_decade * np.log10(np.fmax(size, _UNIT) / _UNIT)
        finite = found[np.isfinite(found)]
        worst = float(finite.min()) - 1.0 if len(finite) else 0.0
        return np.where(found == -np.inf, worst, found)

    @property
    def text(self) -> str:
        if self.most_bytes is not None:
            return f"accuracy in % among models of at most {self.most_bytes:.4g} bytes"
        return f"accuracy in % less {self.per_decade:g} points for ten times the bytes beyond 100 kB"
