"""What an online learner says of itself: scores of a row, and what a label changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.online.head import Head

__all__ = ["Rule"]


class Rule:
    """What an online learner does with a row. Its state is arrays, and grows with inputs and classes."""

    large: ClassVar[bool] = False
    """Whether it takes products of larger matrices than (classes, inputs)."""

    @abstractmethod
    def grow(self, inputs: int, classes: int) -> None:
        """Make room for so many inputs and classes; what is new has no weight yet."""

    @abstractmethod
    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (classes,) for a row (inputs,). Changes nothing."""

    @abstractmethod
    def learn(self, row: NDArray[np.float64], label: int) -> None:
        """Learn that a row is of class `label`."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state."""

    def head(self) -> Head | None:
        """What it has learnt as a small network over rows; None where it is no such network."""
        return None

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from another's state."""
