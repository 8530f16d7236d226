"""The SEA generator: two numbers decide and a third does not, and at known events the rule changes at once.

``y = yes where x1 + x2 ≤ θ``, with x1, x2 and x3 uniform in 0 to 10 and θ another one after each drift; a share of the labels is wrong
(Street and Kim, "A Streaming Ensemble Algorithm (SEA) for Large-Scale Classification", 2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Sea"]

_COLUMNS = ("x1", "x2", "x3")


class Sea(Generated):
    """Columns x1, x2 and x3, classes `yes` and `no`.

    >>> block = next(Sea(noise=0.0).open(size=4))
    >>> [bool(a + b <= 8) for a, b in zip(block.x["x1"], block.x["x2"])] == [label == "yes" for label in block.y]
    True
    """

    contract: ClassVar[dict[str, Any]] = {"events": 300, "concept": 100, "label_delay": 50}

    thresholds: tuple[float, ...] = Field(default=(8.0, 9.0, 7.0, 9.5), min_length=1)
    """θ of each concept in turn; as in the paper."""
    concept: int = Field(default=2500, ge=1)
    """Rows of a concept; after the last the first comes again."""
    noise: float = Field(default=0.1, ge=0, le=1)
    """Share of the labels that are the other class; 0.1 in the paper."""

    def columns(self) -> Mapping[str, ColumnType]:
        return dict.fromkeys(_COLUMNS, "number")

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        drawn = rng.random((len(rows), 4)) * 10
        concepts = rows // self.concept % len(self.thresholds)
        below = drawn[:, 0] + drawn[:, 1] <= np.array(self.thresholds)[concepts]
        wrong = drawn[:, 3] < 10 * self.noise
        labels = np.array(["no", "yes"], dtype=object)[(below ^ wrong).astype(np.int64)]
        return {name: drawn[:, column] for column, name in enumerate(_COLUMNS)}, labels
