"""Random radial basis functions: events lie around centres, each of a class, and the centres move.

A centre is drawn by its weight, and the event lies from it in a direction drawn at random, at a distance ``|N(0, s²)|`` with the centre's
own s. A centre at event n is at ``reflect(c + n v)`` in the unit cube, with ``|v|`` its speed (Bifet, Holmes, Pfahringer, Kirkby and
Gavaldà, "New Ensemble Methods for Evolving Data Streams", 2009, who let some centres move).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated, reflected
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Rbf"]


class Rbf(Generated):
    """Columns x1, x2, …, classes `c1`, `c2`, ….

    >>> import numpy as np
    >>> still, moving = Rbf(speed=0.0), Rbf(speed=0.001)
    >>> float(abs(still.centres(np.array([5000])) - still.centres(np.array([0]))).max())
    0.0
    >>> float(np.linalg.norm(moving.centres(np.array([1]))[0] - moving.centres(np.array([0]))[0], axis=1).max().round(6))
    0.001
    """

    contract: ClassVar[dict[str, Any]] = {"events": 120, "dimensions": 3, "label_delay": 7}

    dimensions: int = Field(default=10, ge=1, le=1000)
    """Columns."""
    classes: int = Field(default=5, ge=2, le=1000)
    """Classes, which centres have in turn."""
    kernels: int = Field(default=50, ge=2, le=10_000)
    """Centres."""
    drifting: int = Field(default=50, ge=0)
    """Centres that move, counted from the first."""
    speed: float = Field(default=0.0001, ge=0)
    """How far a centre moves an event; the cube's edge is 1."""

    def columns(self) -> Mapping[str, ColumnType]:
        return dict.fromkeys(self._names, "number")

    def centres(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where all centres are at events of these numbers, (N, kernels, dimensions)."""
        return reflected(self._kernels.begin + rows[:, None, None] * self._kernels.moves)

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        kernels, count = self._kernels, len(rows)
        chosen = rng.choice(self.kernels, count, p=kernels.weights)
        centres = reflected(kernels.begin[chosen] + rows[:, None] * kernels.moves[chosen])
        ways = rng.normal(size=(count, self.dimensions))
        lengths = rng.normal(size=count) * kernels.spreads[chosen] / np.sqrt((ways * ways).sum(axis=1))
        x = centres + ways * lengths[:, None]
        labels = np.array([f"c{number + 1}" for number in range(self.classes)], dtype=object)[chosen % self.classes]
        return {name: x[:, column] for column, name in enumerate(self._names)}, labels

    @cached_property
    def _kernels(self) -> _Kernels:
        import numpy as np

        rng = np.random.default_rng((self.seed, 0, 1))
        begin = rng.random((self.kernels, self.dimensions))
        ways = rng.normal(size=begin.shape)
        ways *= self.speed / np.sqrt((ways * ways).sum(axis=1, keepdims=True))
        moves = np.where(np.arange(self.kernels)[:, None] < self.drifting, ways, 0.0)
        weights = rng.random(self.kernels)
        return _Kernels(begin, moves, rng.random(self.kernels), weights / weights.sum())

    @property
    def _names(self) -> list[str]:
        return [f"x{place}" for place in range(1, self.dimensions + 1)]


class _Kernels(NamedTuple):
    begin: NDArray[np.float64]
    """(kernels, dimensions), at event 0."""
    moves: NDArray[np.float64]
    """(kernels, dimensions), an event."""
    spreads: NDArray[np.float64]
    weights: NDArray[np.float64]
