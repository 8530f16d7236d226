"""The members for clicks: what is popular, what follows what, what a user's taste is for, and a network over the items of late.

Each gives a distribution over all items known. `popularity`: counts that fade, ``p_i ∝ Σ γ^age + α``. `sequence`: of the last item's
successors, ``p = (C p_follows + β p_popular) / (C + β)`` with C their faded count. `factors`: ``p_i ∝ p_i,popular exp(p_u·q_i)``.
`neural`: the same with two towers, of which the user's is ``t = u + D c + B max(0, A [l, c])`` over the embeddings l of the last item and
c of the last eight. These two learn by softmax over what came and items drawn from the last labels, which are as likely as they are
popular, so that nothing has to be corrected (Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations", 2019), with AdaGrad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.draws import numbers_below, unit_weights
from mapsto.nn.online.recommend.known import grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LAST", "ClickMembers"]

LAST = 8
"""Items of a user that are kept, the last ones."""
_AGES = 0.8 ** np.arange(LAST)
"""What each of them counts, the last first."""
_FADE = 0.9995
"""γ of popularity, an event."""
_LEAST = 0.1
"""α."""
_SUCCESSORS = 32
"""Items that are kept of those that follow one."""
_FOLLOW_FADE = 0.98
"""By which successors fade, each time their item comes."""
_BACK = 3.0
"""β."""
_EVEN = 0.005
"""The part of each member's distribution that is the same for all items."""
_RING = 4096
"""Labels that negatives are drawn from, the last ones."""
_NEGATIVES = 32
_HIDDEN = 32
_BEGIN = 0.1
"""The standard deviation of embeddings at the beginning."""
_SQUARES = 0.1
"""The beginning of AdaGrad's sums of squares."""
_SQUARES_FADE = 0.999
_LARGEST = 1e100


class ClickMembers:
    """The distributions (members, K) over the K items that are known; `names` says in which order.

    >>> members = ClickMembers(("popularity", "sequence"), factors=4, rate=0.1, seed=0)
    >>> for slot in range(2):
    ...     members.enter_item(slot, slot)
    >>> members.enter_user(0, 0)
    >>> for item in (0, 1, 0, 1, 0):
    ...     members.learn(0, item)
    >>> members.answer(0).argmax(1).tolist()
    [0, 1]
    """

    def __init__(self, chosen: Sequence[str], *, factors: int, rate: float, seed: int) -> None:
        self.names = tuple(chosen)
        self._rate, self._seed, self._factors = rate, seed, factors
        self._users = self._items = 0
        self._counts = np.zeros(0)
        self._step = 1.0
        """What a label counts now: it grows, instead of all counts fading."""
        self._total = 0.0
        self._next, self._weights = np.zeros((0, _SUCCESSORS), np.int32), np.zeros((0, _SUCCESSORS))
        """(K, successors): the successor and its faded count, 0 where there is none."""
        self._last = np.zeros((0, LAST), np.int32)
        """(users, LAST): one more than the item, the last first; 0 where there is none."""
        self._ring, self._events = np.zeros(_RING, np.int32), 0
        self._mf = (_Rows(factors, 4 * seed), _Rows(factors, 4 * seed + 1))
        self._nn = (_Rows(factors, 4 * seed + 2), _Rows(factors, 4 * seed + 3))
        k = factors
        drawn = np.array([unit_weights(seed, (1 << 40) + place, _HIDDEN) for place in range(2 * k)]).T
        self._towers: tuple[int, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]] | None = None
        """The tower of the user who was answered last, as long as nothing was learnt since."""
        self._first, self._out, self._direct = (
            _Matrix(drawn * (2 * k) ** -0.5),
            _Matrix(np.zeros((k, _HIDDEN))),
            _Matrix(np.eye(k)),
        )

    def enter_user(self, slot: int, born: int) -> None:
        """A user, the one of number `born`, takes a slot."""
        self._users = max(self._users, slot + 1)
        self._last = grown(self._last, self._users)
        self._last[slot] = 0
        self._towers = None
        self._mf[0].enter(slot, born)
        self._nn[0].enter(slot, born)

    def enter_item(self, slot: int, born: int) -> None:
        """An item takes a slot."""
        self._items = slot + 1
        self._towers = None
        self._counts = grown(self._counts, self._items)
        self._next, self._weights = grown(self._next, self._items), grown(self._weights, self._items)
        self._mf[1].enter(slot, born)
        self._nn[1].enter(slot, born)

    def answer(self, user: int) -> NDArray[np.float64]:
        """(members, K); -1 for a user who is unknown."""
        count = self._items
        if not count:
            return np.zeros((len(self.names), 0))
        popular = self._popular()
        found = np.empty((len(self.names), count))
        for place, name in enumerate(self.names):
            if name == "popularity" or user < 0:
                found[place] = popular
            elif name == "sequence":
                found[place] = self._following(user, popular)
            elif name == "factors":
                found[place] = _tilted(popular, self._mf[1].values[:count].dot(self._mf[0].values[user]))
            else:
                found[place] = _tilted(popular, self._nn[1].values[:count].dot(self._tower_of(user)[-1]))
        found *= 1.0 - _EVEN
        found += _EVEN / count
        return found

    def learn(self, user: int, item: int) -> None:
        """Learn that a user chose an item."""
        tower = self._tower_of(user) if user >= 0 and "neural" in self.names else None
        self._towers = None
        if user >= 0 and self._events:
            kept = min(self._events, _RING)
            drawn = self._ring[numbers_below(kept, self._seed, self._events * _NEGATIVES, _NEGATIVES)]
            others = drawn[drawn != item]
            chosen = np.concatenate(((item,), others)).astype(np.int64)
            if "factors" in self.names:
                self._learn_factors(user, chosen)
            if tower is not None:
                self._learn_network(user, chosen, tower)
        last = int(self._last[user, 0]) - 1 if user >= 0 else -1
        if last >= 0:
            self._follow(last, item)
        if user >= 0:
            self._last[user, 1:] = self._last[user, :-1].copy()
            self._last[user, 0] = item + 1
        self._counts[item] += self._step
        self._total += self._step
        self._step /= _FADE
        if self._step > _LARGEST:
            self._counts /= self._step
            self._total /= self._step
            self._step = 1.0
        self._ring[self._events % _RING] = item
        self._events += 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        users, items = self._users, self._items
        return {
            "popularity": np.array([*self._counts[:items].tolist(), self._step, self._total]),
            "next_items": self._next[:items].copy(),
            "next_weights": self._weights[:items].copy(),
            "last_items": self._last[:users].copy(),
            "ring": self._ring[: min(self._events, _RING)].copy(),
            "events": np.array([self._events], np.int64),
            **{
                f"{name}_{side}": rows.state(count)
                for name, pair in (("factors", self._mf), ("neural", self._nn))
                for side, rows, count in zip(("users", "items"), pair, (users, items), strict=True)
            },
            "tower_first": self._first.state(),
            "tower_out": self._out.state(),
            "tower_direct": self._direct.state(),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        """Raises `ValueError` where the arrays are of other shapes, or hold NaN."""
        *counts, step, total = arrays["popularity"].tolist()
        (events,) = arrays["events"].tolist()
        ring = arrays["ring"]
        followers, weights, last = (arrays[name] for name in ("next_items", "next_weights", "last_items"))
        if len(counts) != items or not np.isfinite(arrays["popularity"]).all() or step <= 0:
            raise ValueError(f"counts of {len(counts)} items, of {items}, or NaN")
        if (followers.shape, weights.shape, last.shape) != ((items, _SUCCESSORS),) * 2 + ((users, LAST),):
            raise ValueError(f"successors {followers.shape} and {weights.shape}, last items {last.shape}")
        if events < 0 or len(ring) != min(events, _RING) or not np.isfinite(weights).all():
            raise ValueError(f"{events} events, of which {len(ring)} are kept, or successors with NaN")
        if not all(((each >= 0) & (each < most)).all() for each, most in ((followers, max(items, 1)), (ring, items))):
            raise ValueError("an item that there is not")
        if not ((last >= 0) & (last <= items)).all():
            raise ValueError("a last item that there is not")
        self._counts, self._step, self._total = np.array(counts), step, total
        self._next, self._weights, self._last = followers.copy(), weights.copy(), last.copy()
        self._ring = np.zeros(_RING, np.int32)
        self._ring[: len(ring)] = ring
        self._events, self._users, self._items, self._towers = events, users, items, None
        for name, pair in (("factors", self._mf), ("neural", self._nn)):
            for side, rows, count in zip(("users", "items"), pair, (users, items), strict=True):
                rows.restore(arrays[f"{name}_{side}"], count)
        self._first.restore(arrays["tower_first"])
        self._out.restore(arrays["tower_out"])
        self._direct.restore(arrays["tower_direct"])

    # -- private

    def _popular(self) -> NDArray[np.float64]:
        least = _LEAST * self._step
        return (self._counts[: self._items] + least) / (self._total + least * self._items)

    def _following(self, user: int, popular: NDArray[np.float64]) -> NDArray[np.float64]:
        last = int(self._last[user, 0]) - 1
        if last < 0:
            return popular
        weights = self._weights[last]
        found = popular * _BACK
        np.add.at(found, self._next[last], weights)
        found /= _BACK + float(weights.sum())
        return found

    def _follow(self, last: int, item: int) -> None:
        followers, weights = self._next[last], self._weights[last]
        weights *= _FOLLOW_FADE
        there = np.flatnonzero((followers == item) & (weights > 0.0))
        place = int(there[0]) if len(there) else int(weights.argmin())
        if not len(there):
            weights[place] = 0.0
            followers[place] = item
        weights[place] += 1.0

    def _learn_factors(self, user: int, chosen: NDArray[np.int64]) -> None:
        """One step on the cross-entropy of the first of the chosen items."""
        users, items = self._mf
        p, q = users.values[user].copy(), items.values[chosen]
        error = _softmax(q.dot(p))
        error[0] -= 1.0
        users.descend(user, error.dot(q), self._rate)
        items.descend_all(chosen, error[:, None] * p, self._rate)

    def _tower(self, user: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The inputs of the user's tower, its hidden units, and what it makes of them (factors,)."""
        u, items = self._nn[0].values[user], self._nn[1].values
        last = self._last[user]
        count = int(np.count_nonzero(last))
        k = self._factors
        x = np.zeros(2 * k)
        if count:
            x[:k] = items[last[0] - 1]
            ages = _AGES[:count]
            x[k:] = ages.dot(items[last[:count] - 1]) / ages.sum()
        hidden = np.maximum(self._first.values.dot(x), 0.0)
        return x, hidden, u + self._direct.values.dot(x[k:]) + self._out.values.dot(hidden)

    def _tower_of(self, user: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        if self._towers is None or self._towers[0] != user:
            self._towers = (user, self._tower(user))
        return self._towers[1]

    def _learn_network(
        self,
        user: int,
        chosen: NDArray[np.int64],
        made: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        users, items = self._nn
        k = self._factors
        x, hidden, tower = made
        q = items.values[chosen]
        error = _softmax(q.dot(tower))
        error[0] -= 1.0
        back = error.dot(q)
        behind = self._out.values.T.dot(back) * (hidden > 0.0)
        inputs = self._first.values.T.dot(behind)
        inputs[k:] += self._direct.values.T.dot(back)
        self._out.descend(back[:, None] * hidden, self._rate)
        self._direct.descend(back[:, None] * x[k:], self._rate)
        self._first.descend(behind[:, None] * x, self._rate)
        users.descend(user, back, self._rate)
        items.descend_all(chosen, error[:, None] * tower, self._rate)
        last = self._last[user]
        count = int(np.count_nonzero(last))
        if count:
            ages = _AGES[:count] / _AGES[:count].sum()
            moved = ages[:, None] * inputs[k:]
            moved[0] += inputs[:k]
            items.descend_all(last[:count].astype(np.int64) - 1, moved, self._rate)


class _Rows:
    """Embeddings, and AdaGrad's sums of squares, one a row."""

    def __init__(self, factors: int, seed: int) -> None:
        self.values, self._squares = np.zeros((0, factors)), np.zeros(0)
        self._seed = seed

    def enter(self, slot: int, born: int) -> None:
        self.values, self._squares = grown(self.values, slot + 1), grown(self._squares, slot + 1)
        self.values[slot] = _BEGIN * unit_weights(self._seed, born, self.values.shape[1])
        self._squares[slot] = _SQUARES

    def descend(self, row: int, gradient: NDArray[np.float64], rate: float) -> None:
        squares = _SQUARES_FADE * float(self._squares[row]) + float(gradient.dot(gradient)) / len(gradient)
        self._squares[row] = squares
        self.values[row] -= (rate / squares**0.5) * gradient

    def descend_all(self, rows: NDArray[np.int64], gradients: NDArray[np.float64], rate: float) -> None:
        """Rows may stand there more than once."""
        np.add.at(self._squares, rows, (gradients * gradients).sum(1) / gradients.shape[1])
        np.add.at(self.values, rows, gradients * (-rate / np.sqrt(self._squares[rows]))[:, None])

    def state(self, count: int) -> NDArray[np.float64]:
        return np.concatenate((self.values[:count], self._squares[:count, None]), axis=1)

    def restore(self, state: NDArray[np.float64], count: int) -> None:
        if (
            state.shape != (count, self.values.shape[1] + 1)
            or not np.isfinite(state).all()
            or (state[:, -1] <= 0).any()
        ):
            raise ValueError(f"embeddings {state.shape} of {count} rows, or with NaN")
        self.values, self._squares = state[:, :-1].copy(), state[:, -1].copy()


class _Matrix:
    """Weights and AdaGrad's sums of squares."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values, self._squares = np.ascontiguousarray(values), np.full(values.shape, _SQUARES)

    def descend(self, gradient: NDArray[np.float64], rate: float) -> None:
        self._squares *= _SQUARES_FADE
        self._squares += gradient * gradient
        self.values -= rate * gradient / np.sqrt(self._squares)

    def state(self) -> NDArray[np.float64]:
        return np.stack((self.values, self._squares))

    def restore(self, state: NDArray[np.float64]) -> None:
        if state.shape != (2, *self.values.shape) or not np.isfinite(state).all() or (state[1] <= 0).any():
            raise ValueError(f"weights {state.shape} where {(2, *self.values.shape)} are, or NaN")
        self.values, self._squares = state[0].copy(), state[1].copy()


def _tilted(popular: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """``p_i ∝ popular_i exp(score_i)``."""
    found = popular * np.exp(scores - np.maximum.reduce(scores))
    found /= np.add.reduce(found)
    return found


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.exp(scores - np.maximum.reduce(scores))
    found /= np.add.reduce(found)
    return found
