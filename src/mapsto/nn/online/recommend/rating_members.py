"""The members for ratings, and a blend of them by ridge regression.

With x the members' answers less the first one's and y the label less it, the blend is ``first + w·x``, ``w = (A + λI)⁻¹ (b + λ w₀)``,
``A = Σ γ^age x xᵀ``, ``b = Σ γ^age x y`` and w₀ equal parts (stacked regression: Breiman, "Stacked Regressions", 1996).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.recommend.baseline import Biases
from mapsto.nn.online.recommend.rating_network import RatingNetwork
from mapsto.nn.online.recommend.taste_filter import TasteFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RatingMembers"]

_RIDGE = 50.0
"""λ."""
_FADE = 0.9998
"""γ."""
_FASTER = 3.0
"""How many times faster the network's embeddings take tastes to drift."""


class RatingMembers:
    """What each member expects, of labels that are standardised; `names` says in which order.

    >>> members = RatingMembers(("baseline", "factors"), factors=4, precision=5.0, change=1e-4, rate=0.01, seed=0)
    >>> members.names
    ('baseline', 'factors', 'blend')
    """

    def __init__(
        self, chosen: Sequence[str], *, factors: int, precision: float, change: float, rate: float, seed: int
    ) -> None:
        self.names = (*chosen, "blend") if len(chosen) > 1 else tuple(chosen)
        self.biases = Biases()
        self._chosen = tuple(chosen)
        self._factors = TasteFilter(factors, precision=precision, change=change, seed=2 * seed)
        self._network = RatingNetwork(
            2 * factors, precision=precision, change=_FASTER * change, rate=rate, seed=2 * seed + 1
        )
        self._blend = _Blend(len(chosen) - 1)
        self._users = self._items = 0

    def enter_user(self, slot: int, born: int) -> None:
        """A user, the one of number `born`, takes a slot."""
        self._users = max(self._users, slot + 1)
        self.biases.grow(self._users, self._items)
        self.biases.forget(slot)
        if "factors" in self._chosen:
            self._factors.enter_user(slot, born)
        if "neural" in self._chosen:
            self._network.enter_user(slot, born)

    def enter_item(self, slot: int, born: int) -> None:
        """An item takes a slot."""
        self._items = max(self._items, slot + 1)
        self.biases.grow(self._users, self._items)
        if "factors" in self._chosen:
            self._factors.enter_item(slot, born)
        if "neural" in self._chosen:
            self._network.enter_item(slot, born)

    def answer(self, user: int, item: int, side: NDArray[np.float64]) -> NDArray[np.float64]:
        """(members,); -1 for one that is unknown."""
        found: list[float] = []
        for name in self._chosen:
            if name == "baseline":
                found.append(self.biases.answer(user, item))
            elif name == "factors":
                found.append(self._factors.answer(user, item))
            else:
                found.append(self._network.answer(user, item, side, self.biases))
        if len(found) > 1:
            found.append(self._blend.answer(found))
        return np.array(found)

    def answers(self, user: int, items: NDArray[np.int64], side: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of items (n,), all known: (members, n)."""
        found: list[NDArray[np.float64]] = []
        for name in self._chosen:
            if name == "baseline":
                found.append(self.biases.of_items(items) + self.biases.of_user(user))
            elif name == "factors":
                found.append(self._factors.answers(user, items))
            else:
                found.append(self._network.answers(user, items, side, self.biases))
        if len(found) > 1:
            found.append(self._blend.answers(found))
        return np.array(found)

    def learn(self, user: int, item: int, side: NDArray[np.float64], label: float, told: NDArray[np.float64]) -> None:
        """Learn a label; `told` is what the members answered."""
        self._blend.learn(told, label)
        if user >= 0 and item >= 0:
            if "factors" in self._chosen:
                self._factors.learn(user, item, label)
            if "neural" in self._chosen:
                self._network.learn(user, item, side, label, self.biases)
        self.biases.learn(user, item, label)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            **self.biases.arrays(),
            **(self._factors.arrays("factors") if "factors" in self._chosen else {}),
            **(self._network.arrays() if "neural" in self._chosen else {}),
            "blend": self._blend.state.copy(),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        """Raises `ValueError` where the arrays are of other shapes, or hold NaN."""
        self.biases.restore(arrays, users, items)
        if "factors" in self._chosen:
            self._factors.restore(arrays, "factors", users, items)
        if "neural" in self._chosen:
            self._network.restore(arrays, users, items)
        self._blend.restore(arrays["blend"])
        self._users, self._items = users, items


class _Blend:
    """A and b of the regression on d members, beside the first."""

    def __init__(self, others: int) -> None:
        self._others = others
        self.state = np.zeros((others, others + 1))
        """A, and b as its last column."""
        self._weights: list[float] = []
        self._solve()

    def answer(self, told: Sequence[float]) -> float:
        first = told[0]
        return first + sum(w * (each - first) for w, each in zip(self._weights, told[1:], strict=True))

    def answers(self, told: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        found = told[0].copy()
        for w, each in zip(self._weights, told[1:], strict=True):
            found += w * (each - told[0])
        return found

    def learn(self, told: NDArray[np.float64], label: float) -> None:
        if not self._others:
            return
        x = told[1 : self._others + 1] - told[0]
        self.state *= _FADE
        self.state[:, :-1] += x[:, None] * x
        self.state[:, -1] += x * (label - float(told[0]))
        self._solve()

    def restore(self, state: NDArray[np.float64]) -> None:
        if state.shape != self.state.shape or not np.isfinite(state).all():
            raise ValueError(f"a blend of shape {state.shape}, or with NaN")
        self.state = state.copy()
        self._solve()

    def _solve(self) -> None:
        """Of one or two others in closed form."""
        equal = _RIDGE / (self._others + 1)
        if self._others == 2:
            (a, c, x), (_, b, y) = self.state.tolist()
            a, b, x, y = a + _RIDGE, b + _RIDGE, x + equal, y + equal
            whole = a * b - c * c
            self._weights = [(b * x - c * y) / whole, (a * y - c * x) / whole]
        else:
            self._weights = [(x + equal) / (a + _RIDGE) for a, x in self.state.tolist()]
