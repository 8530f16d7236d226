"""Whom each user's answers follow: weights over members that begin as those of all users, and become the user's own with each event.

A member m is weighed by how likely it found what came, ``w_um ∝ exp(G_m + D_um)``, with ``G_m = Σ γ_g^age l_m`` over all events and
``D_um = Σ γ_u^age l_m`` over the user's own, l the log-likelihood of a label less its mean over members. So a user without events has the
weights of all, and each event counts for the user as much as an event counts for all (Bayesian model averaging with forgetting: Raftery,
Kárný and Ettler, "Online Prediction under Model Uncertainty via Dynamic Model Averaging", 2010). A share ε is spread evenly, so that no
member is ever lost (Herbster and Warmuth, "Tracking the Best Expert", 1998).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.recommend.known import grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Selection"]

_OF_ALL = 0.998
"""γ_g."""
_OF_USER = 0.98
"""γ_u."""
_EVEN = 0.01
"""ε."""
_MOST = 20.0
"""No log-likelihood counts for more, so that one strange label decides nothing."""


class Selection:
    """Weights of each user.

    >>> selection = Selection(2)
    >>> selection.grow(2)
    >>> for _ in range(10):
    ...     selection.learn(0, np.array([-1.0, -2.0]))
    ...     selection.learn(1, np.array([-1.5, -1.2]))
    >>> bool(selection.weights(0)[0] > selection.weights(-1)[0] > selection.weights(1)[0])
    True
    """

    def __init__(self, members: int) -> None:
        self._all = np.zeros(members)
        self._users = np.zeros((0, members))
        self._count = 0

    def grow(self, users: int) -> None:
        """Make room."""
        self._users, self._count = grown(self._users, users), users

    def forget(self, user: int) -> None:
        """The slot is another user's from now on."""
        self._users[user] = 0.0

    def weights(self, user: int) -> NDArray[np.float64]:
        """(members,), which sum to 1; of user -1 those of all."""
        sums: list[float] = (self._all if user < 0 else self._all + self._users[user]).tolist()
        most = max(sums)
        found = [math.exp(each - most) for each in sums]  # of so few, quicker than by NumPy
        scale, even = (1.0 - _EVEN) / sum(found), _EVEN / len(found)
        return np.array([scale * each + even for each in found])

    def learn(self, user: int, likelihoods: NDArray[np.float64]) -> None:
        """Take in the log-likelihoods (members,) of a label."""
        given: list[float] = likelihoods.tolist()
        most = max(given)
        given = [max(each - most, -_MOST) for each in given]
        told = np.array(given)
        told -= sum(given) / len(given)
        self._all *= _OF_ALL
        self._all += told
        if user >= 0:
            mine = self._users[user]
            mine *= _OF_USER
            mine += told

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"selection_all": self._all.copy(), "selection_users": self._users[: self._count].copy()}

    def restore(self, arrays: Mapping[str, NDArray[Any]], users: int) -> None:
        """Raises `ValueError` where the arrays are of other shapes, or hold NaN."""
        mine, theirs = arrays["selection_all"].copy(), arrays["selection_users"].copy()
        if mine.shape != self._all.shape or theirs.shape != (users, len(mine)):
            raise ValueError(f"weights {mine.shape} and {theirs.shape} of {users} users and {len(self._all)} members")
        if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
            raise ValueError("weights with NaN")
        self._all, self._users, self._count = mine, theirs, users
