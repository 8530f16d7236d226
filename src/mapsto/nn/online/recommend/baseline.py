"""The answer without tastes: the mean of all, and how far the user and the item lie from it.

``b_u = S_u / (n_u + λ)``, where S_u sums what the user's labels are above the mean and the item, and n_u counts them, each counting γ times
the next, so that the old fades; of items alike (Koren, "Factor in the Neighbors: Scalable and Accurate Collaborative Filtering", 2010,
section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.recommend.known import grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Biases"]

_SHRINK = 5.0
"""λ: labels that speak for no difference from the mean."""
_FADES = (0.995, 0.998)
"""γ of a user and of an item."""


class Biases:
    """Sums, counts and what these come to, of users and of items, (count, 3). Labels are standardised.

    >>> biases = Biases()
    >>> biases.grow(1, 1)
    >>> for _ in range(50):
    ...     biases.learn(0, 0, 1.0)
    >>> 0.8 < biases.answer(0, 0) < 1.0, biases.answer(-1, -1)
    (True, 0.0)
    """

    def __init__(self) -> None:
        self._sides = [np.zeros((0, 3)), np.zeros((0, 3))]
        self._counts = [0, 0]

    def grow(self, users: int, items: int) -> None:
        """Make room."""
        self._counts = [users, items]
        self._sides = [grown(side, count) for side, count in zip(self._sides, self._counts, strict=True)]

    def forget(self, user: int) -> None:
        """The slot is another user's from now on."""
        self._sides[0][user] = 0.0

    def of_user(self, user: int) -> float:
        """b_u; 0 of one that is unknown (-1)."""
        return _bias(self._sides[0], user)

    def of_item(self, item: int) -> float:
        """b_i."""
        return _bias(self._sides[1], item)

    def answer(self, user: int, item: int) -> float:
        """b_u + b_i."""
        return _bias(self._sides[0], user) + _bias(self._sides[1], item)

    def of_items(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """b_i of items (n,)."""
        return self._sides[1][items, 2]

    def counts(self, user: int, item: int) -> tuple[float, float]:
        """Faded counts of labels."""
        users, items = self._sides
        return (float(users[user, 1]) if user >= 0 else 0.0), (float(items[item, 1]) if item >= 0 else 0.0)

    def item_counts(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Faded counts of labels of items (n,)."""
        return self._sides[1][items, 1]

    def learn(self, user: int, item: int, label: float) -> None:
        """Learn a label; -1 for one that is unknown."""
        _learn(self._sides[1], item, label - self.of_user(user), _FADES[1])
        _learn(self._sides[0], user, label - self.of_item(item), _FADES[0])

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            f"biases_{name}": side[:count].copy()
            for name, side, count in zip(("users", "items"), self._sides, self._counts, strict=True)
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        """Raises `ValueError` where the arrays are of other shapes, or hold NaN."""
        sides = [arrays[f"biases_{name}"].copy() for name in ("users", "items")]
        if [side.shape for side in sides] != [(users, 3), (items, 3)]:
            raise ValueError(f"biases {[side.shape for side in sides]} of {users} users and {items} items")
        if not all(np.isfinite(side).all() and (side[:, 1] >= 0).all() for side in sides):
            raise ValueError("biases with NaN, or counts below 0")
        self._sides, self._counts = sides, [users, items]


def _bias(side: NDArray[np.float64], slot: int) -> float:
    return float(side[slot, 2]) if slot >= 0 else 0.0


def _learn(side: NDArray[np.float64], slot: int, above: float, fade: float) -> None:
    if slot >= 0:
        total, count, _ = side[slot].tolist()
        total, count = fade * total + above, fade * count + 1.0
        side[slot] = total, count, total / (count + _SHRINK)
