"""Thompson sampling: of each member a draw from what its share of right answers may be, and the member with the largest takes the event.

``θ_m ~ Beta(1 + right_m, 1 + wrong_m)`` with discounted counts, for a rule that drifts (Thompson, 1933; Raj and Kalyani, "Taming
Non-stationary Bandits", 2017). Of a user the counts stand on those of all, which count as `_PRIOR` events of that user at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from mapsto.nn.online.selection.chooser import Chooser, checked, worth_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Thompson"]

_MEMORY = 0.999
_PRIOR = 20.0
_MOST_USERS = 10_000


class Thompson(Chooser):
    """One member an event.

    >>> chooser, none = Thompson(2, share=1.0, seed=0), np.zeros(0)
    >>> for _ in range(300):
    ...     chosen = chooser.choose(np.ones(2), "", none)
    ...     chooser.learn(chosen, np.array([0.2, 0.9]), "", none)
    >>> bool(sum(chooser.choose(np.ones(2), "", none)[1] for _ in range(100)) > 90)
    True
    """

    each_event: ClassVar[bool] = True

    def __init__(self, members: int, *, share: float, seed: int) -> None:
        super().__init__(members, share=share, seed=seed)
        self._all = np.zeros((2, members))
        """Right and wrong answers, discounted."""
        self._users: dict[str, NDArray[np.float64]] = {}
        self._draws = 0

    def choose(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        counts = self._counts(user)
        generator = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, self._draws]))
        self._draws += 1
        return worth_most(generator.beta(1.0 + counts[0], 1.0 + counts[1]), costs, self._share)

    def best(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        right, wrong = self._counts(user)
        return worth_most((1.0 + right) / (2.0 + right + wrong), costs, self._share)

    def _counts(self, user: str) -> NDArray[np.float64]:
        """Right and wrong answers (2, M) that count for a user."""
        if not user:
            return self._all
        known = self._all * np.minimum(1.0, _PRIOR / np.maximum(self._all.sum(0), 1.0))
        own = self._users.get(user)
        return known if own is None else known + own

    def learn(
        self,
        there: NDArray[np.bool_],
        right: NDArray[np.float64],
        user: str,
        context: NDArray[np.float64],
    ) -> None:
        new = np.stack([np.where(there, right, 0.0), np.where(there, 1.0 - right, 0.0)])
        self._all = np.where(there, _MEMORY * self._all, self._all) + new
        if user:
            own = self._users.pop(user, None)
            self._users[user] = new if own is None else np.where(there, _MEMORY * own, own) + new
            while len(self._users) > _MOST_USERS:
                del self._users[next(iter(self._users))]

    def arrays(self) -> dict[str, NDArray[Any]]:
        users = np.array(list(self._users.values()), np.float64).reshape(-1, 2, self._members)
        return {"all": self._all.copy(), "users": users}

    def values(self) -> dict[str, Any]:
        return {"draws": self._draws, "users": list(self._users)}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        names = [str(each) for each in cast("list[Any]", values["users"])]
        self._all = checked(arrays["all"], (2, self._members))
        users = checked(arrays["users"], (len(names), 2, self._members))
        self._users = {name: users[place].copy() for place, name in enumerate(names)}
        self._draws = int(values["draws"])
