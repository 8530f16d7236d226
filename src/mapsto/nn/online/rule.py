"""What an online learner says of itself: scores of a row, and what a label changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.online.event_rows import Columns, WholeBlock
    from mapsto.nn.online.head import Head

__all__ = ["BlockRule", "Rule"]


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

    def raise_rate(self, factor: float) -> bool:
        """Learn so many times faster for a while; False where it has no rate, and nothing is done."""
        return False

    def reset_head(self) -> bool:
        """Let what answers begin anew, and keep what makes features; False where it has no such parts, and nothing is done."""
        return False

    def head(self) -> Head | None:
        """What it has learnt as a small network over rows; None where it is no such network."""
        return None

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from another's state."""


class BlockRule(Rule):
    """A rule that can take whole blocks too, with the same bits as row by row: it moves the columns' scales and makes the rows itself."""

    @abstractmethod
    def fits(self, block: WholeBlock) -> bool:
        """Whether none of its numbers counts as infinite."""

    @abstractmethod
    def take(
        self, columns: Columns, count: int, address: int, labels: Sequence[int], known: int
    ) -> NDArray[np.float64] | None:
        """Answer and learn the n events of a block.

        Parameters
        ----------
        columns, count, address
            What `WholeBlock` has of it; there is room for all inputs and classes.
        labels
            (n,), the numbers of their classes; -1 without a label.
        known
            How many classes were met before; others get the next numbers in the order in which they come.

        Returns
        -------
        NDArray or None
            (n, classes): the scores of before each label; 0 for a class that was not known then. None where a number counts as infinite:
            then nothing is done.
        """

    @abstractmethod
    def ask(self, block: WholeBlock) -> NDArray[np.float64] | None:
        """Scores (n, classes); None where a number counts as infinite. Changes nothing."""
