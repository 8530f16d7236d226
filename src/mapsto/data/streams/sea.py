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

_COLUMNS = ("x1", "x2", "x3")
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
        return dict.fromkeys(_COLUMNS, "number")

    def size(self) -> int:
        return self.events

    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        import numpy as np

        fields = (self.seed, self.thresholds, self.concept, self.noise)
        first, last = start // _CHUNK, (stop - 1) // _CHUNK
        chunks = [_chunk(chunk, *fields) for chunk in range(first, last + 1)]
        drawn, labels = chunks[0] if first == last else tuple(map(np.concatenate, zip(*chunks, strict=True)))
        part = slice(start - first * _CHUNK, stop - first * _CHUNK)
        return {name: drawn[part, column] for column, name in enumerate(_COLUMNS)}, labels[part]


@lru_cache(maxsize=8)
def _chunk(
    chunk: int, seed: int, thresholds: tuple[float, ...], concept: int, noise: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The numbers (1024, 3) and labels (1024,) of a chunk."""
    import numpy as np

    drawn = np.random.default_rng((seed, chunk)).random((_CHUNK, 4)) * 10
    concepts = np.arange(chunk * _CHUNK, (chunk + 1) * _CHUNK) // concept % len(thresholds)
    below = drawn[:, 0] + drawn[:, 1] <= np.array(thresholds)[concepts]
    return drawn[:, :3], np.array(["no", "yes"], dtype=object)[(below ^ (drawn[:, 3] < 10 * noise)).astype(np.int64)]
