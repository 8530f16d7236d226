"""The SEA generator: two numbers decide and a third does not, and at known events the rule changes at once.

``y = yes where x1 + x2 ≤ θ``, with x1, x2 and x3 uniform in 0 to 10 and θ another one after each drift; a share of the labels is wrong
(Street and Kim, "A Streaming Ensemble Algorithm (SEA) for Large-Scale Classification", 2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._indexed import Indexed
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Sea"]

_CHUNK = 1024
"""Events that are drawn together, from a generator of their own."""


class Sea(Indexed):
    """Columns x1, x2 and x3, classes `yes` and `no`.

    >>> block = next(Sea(noise=0.0).open(size=4))
    >>> [bool(a + b <= 8) for a, b in zip(block.x["x1"], block.x["x2"])] == [label == "yes" for label in block.y]
    True
    """

    contract: ClassVar[dict[str, Any]] = {"events": 300, "concept": 100, "label_delay": 50}

    events: int = Field(default=10_000, ge=1)
    """How many rows."""
    thresholds: tuple[float, ...] = Field(default=(8.0, 9.0, 7.0, 9.5), min_length=1)
    """θ of each concept in turn; as in the paper."""
    concept: int = Field(default=2500, ge=1)
    """Rows of a concept; after the last the first comes again."""
    noise: float = Field(default=0.1, ge=0, le=1)
    """Share of the labels that are the other class; 0.1 in the paper."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def fingerprint(self) -> str:
        return self.identity()

    def columns(self) -> Mapping[str, ColumnType]:
        return {"x1": "number", "x2": "number", "x3": "number"}

    def size(self) -> int:
        return self.events

    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        import numpy as np

        chunks = [_drawn(self.seed, chunk) for chunk in range(start // _CHUNK, (stop - 1) // _CHUNK + 1)]
        drawn = np.concatenate(chunks)[start % _CHUNK :][: stop - start]
        concepts = np.arange(start, stop) // self.concept % len(self.thresholds)
        below = drawn[:, 0] + drawn[:, 1] <= np.array(self.thresholds)[concepts]
        labels = np.array(["no", "yes"], dtype=object)[(below ^ (drawn[:, 3] < 10 * self.noise)).astype(np.int64)]
        return {f"x{column + 1}": drawn[:, column] for column in range(3)}, labels


@lru_cache(maxsize=8)
def _drawn(seed: int, chunk: int) -> NDArray[Any]:
    """(1024, 4), uniform in 0 to 10."""
    import numpy as np

    return np.random.default_rng((seed, chunk)).random((_CHUNK, 4)) * 10
