"""Friedman's function with a drift that comes and goes: numbers to predict from five columns of ten, which then change their parts.

``y = 10 sin(π x1 x2) + 20 (x3 - ½)² + 10 x4 + 5 x5 + N(0, 1)`` with x uniform in 0 to 1 (Friedman, "Multivariate Adaptive Regression
Splines", 1991); in every other concept ``y = 10 sin(π x4 x5) + 20 (x2 - ½)² + 10 x1 + 5 x3 + N(0, 1)``, the global and recurring drift of
Ikonomovska, Gama and Džeroski, "Learning Model Trees from Evolving Data Streams", 2011.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated
from mapsto.kinds import ColumnType, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Friedman"]

_COLUMNS = tuple(f"x{place}" for place in range(1, 11))
_PARTS = ((0, 1, 2, 3, 4), (3, 4, 1, 0, 2))
"""Which columns the terms of the function are of, in each concept."""


class Friedman(Generated):
    """Columns x1 to x10, labels that are numbers.

    >>> import math
    >>> block = next(Friedman(noise=0.0).open(size=1))
    >>> x = {name: float(values[0]) for name, values in block.x.items()}
    >>> y = 10 * math.sin(math.pi * x["x1"] * x["x2"]) + 20 * (x["x3"] - 0.5) ** 2 + 10 * x["x4"] + 5 * x["x5"]
    >>> abs(y - float(block.y[0])) < 1e-12
    True
    """

    contract: ClassVar[dict[str, Any]] = {"events": 150, "concept": 40, "label_delay": 5}

    concept: int = Field(default=2500, ge=1)
    """Rows after which the two functions take turns."""
    noise: float = Field(default=1.0, ge=0)
    """Standard deviation of what is added to labels; 1 in the paper."""

    @property
    def task(self) -> Task:
        return "values"

    def columns(self) -> Mapping[str, ColumnType]:
        return dict.fromkeys(_COLUMNS, "number")

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        x = rng.random((len(rows), len(_COLUMNS)))
        a, b, c, d, e = np.take_along_axis(x, np.array(_PARTS)[rows // self.concept % 2], axis=1).T
        y = 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e + self.noise * rng.normal(size=len(rows))
        return {name: x[:, column] for column, name in enumerate(_COLUMNS)}, y
