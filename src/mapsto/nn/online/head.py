"""What an online learner comes to, as a small network over its rows, where that is what it is: what leaves it is packaged by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapsto.kinds.model import RowType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Head", "RowColumn"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """Scores ``softmax(last max(0, first z) + bias)`` of a row z; without `first`, ``softmax(last z + bias)``."""

    first: NDArray[np.float64] | None = None
    """Shape (hidden, inputs)."""
    last: NDArray[np.float64]
    """Shape (classes, hidden) or (classes, inputs)."""
    bias: NDArray[np.float64]
    """Shape (classes,)."""

    @property
    def parameters(self) -> int:
        """Numbers in it."""
        return sum(array.size for array in (self.first, self.last, self.bias) if array is not None)


@dataclass(frozen=True, kw_only=True)
class RowColumn:
    """Where a column of events stands in a row, and how its values come there."""

    name: str
    type: RowType
    places: tuple[int, ...]
    """Its inputs: of a number one, of words one a category, of a vector one a place."""
    categories: tuple[str, ...] = ()
    """Of words."""
    mean: float = 0.0
    std: float = 0.0
    """Of a number; 0 while it is constant: then its input is 0."""
    crowded: bool = False
    """Of words: whether the last input is that of all words which have none of their own."""
