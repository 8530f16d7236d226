"""What chooses among the members of `online.select`: which of them take an event, and what their answers are worth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chooser", "checked", "worth_most"]


class Chooser:
    """Chooses which of M members take the events that follow. Its state is flat.

    Parameters
    ----------
    members
        How many there are.
    share
        What those that are chosen may cost, as a share of the cost of all.
    seed
        Of what it draws.
    """

    each_event: ClassVar[bool] = False
    """Whether it chooses anew for each event; otherwise for a segment of them."""
    contextual: ClassVar[bool] = False
    """Whether it looks at an event's features."""

    def __init__(self, members: int, *, share: float, seed: int) -> None:
        self._members, self._share, self._seed = members, share, seed

    @abstractmethod
    def choose(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which members (M,) take what follows.

        Parameters
        ----------
        costs
            (M,), of each an event, in microseconds.
        user, context
            Whose event it is, and its features (D,), where the chooser looks at each event; otherwise empty.
        """

    @abstractmethod
    def best(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which members (M,) answer a question that no label will follow: what it would choose without trying. Changes nothing."""

    @abstractmethod
    def learn(
        self,
        there: NDArray[np.bool_],
        right: NDArray[np.float64],
        user: str,
        context: NDArray[np.float64],
    ) -> None:
        """Learn how good (M,) the answers of those were that answered: 1 for a right one, 0 for a wrong one."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, besides `values`."""

    def values(self) -> dict[str, Any]:
        """What of the state is no array."""
        return {}

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where it does not fit."""

    def tables(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What the report shows of it."""
        return []


def checked(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A copy. Raises `ValueError` where it is of another shape, or has NaN."""
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"a chooser's array of shape {array.shape} in place of {shape}, or NaN in it")
    return array.copy()


def worth_most(scores: NDArray[np.float64], costs: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """The member (M,) of the highest score, where one that costs more than its share of the cost of all has to be better by as much."""
    dear = np.zeros(len(costs)) if share >= 1.0 else np.maximum(costs / costs.sum() - share, 0.0)
    chosen = np.zeros(len(scores), np.bool_)
    chosen[int((scores - dear).argmax())] = True
    return chosen
