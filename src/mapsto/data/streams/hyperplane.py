"""A hyperplane that turns: points on one side of it are of one class, and its weights change a little with every event.

``y = yes where Σ w_i(n) x_i ≥ ½ Σ w_i(n)``, with x uniform in 0 to 1. Weights begin uniform in 0 to 1; the first `drifting` of them move by
`magnitude` an event, ``w_i(n) = reflect(w_i ± n t)``, and turn back at 0 and 1 (Hulten, Spencer and Domingos, "Mining Time-Changing Data
Streams", 2001, where they turn at random: here a weight is known at every event).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated, reflected
from mapsto.errors import SpecError
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Hyperplane"]


class Hyperplane(Generated):
    """Columns x1, x2, …, classes `yes` and `no`.

    Raises `SpecError` where more columns drift than there are.

    >>> import numpy as np
    >>> plane = Hyperplane(dimensions=3, drifting=1, magnitude=0.01, noise=0.0)
    >>> begin, later = plane.weights(np.array([0, 10]))
    >>> (later - begin).round(9).tolist()
    [0.1, 0.0, 0.0]
    """

    contract: ClassVar[dict[str, Any]] = {"events": 150, "dimensions": 4, "magnitude": 0.01}

    dimensions: int = Field(default=10, ge=1, le=1000)
    """Columns."""
    drifting: int = Field(default=2, ge=0)
    """Columns whose weight moves."""
    magnitude: float = Field(default=0.001, ge=0)
    """How far a weight moves an event; 0.001 turns it round in 1,000 events."""
    noise: float = Field(default=0.05, ge=0, le=1)
    """Share of the labels that are the other class."""

    def columns(self) -> Mapping[str, ColumnType]:
        return dict.fromkeys(self._names, "number")

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The weights at events of these numbers, (N, dimensions)."""
        import numpy as np

        begin, signs = self._begin
        moves = np.where(np.arange(self.dimensions) < self.drifting, signs * self.magnitude, 0.0)
        return reflected(begin + rows[:, None] * moves)

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        x = rng.random((len(rows), self.dimensions))
        weights = self.weights(rows)
        above = (weights * x).sum(axis=1) >= weights.sum(axis=1) / 2
        wrong = rng.random(len(rows)) < self.noise
        labels = np.array(["no", "yes"], dtype=object)[(above ^ wrong).astype(np.int64)]
        return {name: x[:, column] for column, name in enumerate(self._names)}, labels

    @cached_property
    def _begin(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The first weights and the directions in which they move."""
        import numpy as np

        if self.drifting > self.dimensions:
            raise SpecError(
                f"{self.drifting} of {self.dimensions} columns cannot drift",
                where="hyperplane: drifting",
                hint=f"give at most {self.dimensions}",
            )
        rng = np.random.default_rng((self.seed, 0, 1))
        return rng.random(self.dimensions), rng.choice([-1.0, 1.0], self.dimensions)

    @property
    def _names(self) -> list[str]:
        return [f"x{place}" for place in range(1, self.dimensions + 1)]
