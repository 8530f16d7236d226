"""A small network over embeddings of user and item, how much is known of both, what both were off by lately, and what else an event says.

``r = f(u, i) + w·[max(0, A x), x]`` with ``x = (p_u ∘ q_i, p_u, q_i, log n_u, log n_i, b_u, b_i, e_u, e_i, side)``. The embeddings p
and q, and f, are those of a `TasteFilter` of its own, which follows drift faster than that of the member `factors`; e are errors of the
baseline, faded fast. A and w learn by AdaGrad whose sums of squares fade by 0.999 an event, so that they go on learning. He et al.
("Neural Collaborative Filtering", 2017) train the embeddings with the rest; on streams of some ten thousand events that learnt next to
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.draws import unit_weights
from mapsto.nn.online.recommend.baseline import Biases
from mapsto.nn.online.recommend.known import grown
from mapsto.nn.online.recommend.taste_filter import TasteFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RatingNetwork"]

_HIDDEN = 24
_FADE = 0.999
"""Of AdaGrad's sums of squares."""
_SQUARES = 0.1
"""Their beginning."""
_LATELY = (0.8, 0.9)
"""How fast errors of the baseline fade, of a user and of an item."""
_OTHERS = 6
"""Inputs beside embeddings and what else an event says."""
_LOG = 0.25
"""By what logs of counts are scaled."""


class RatingNetwork:
    """Embeddings, weights A (hidden, inputs) and w (hidden + inputs,), and errors lately (count,) of users and items.

    >>> biases, network = Biases(), RatingNetwork(4, precision=5.0, change=1e-3, rate=0.01, seed=0)
    >>> biases.grow(1, 1)
    >>> network.enter_user(0, 0)
    >>> network.enter_item(0, 0)
    >>> for _ in range(40):
    ...     network.learn(0, 0, np.ones(1), 1.0, biases)
    >>> round(network.answer(0, 0, np.ones(1), biases), 1)
    1.0
    """

    def __init__(self, factors: int, *, precision: float, change: float, rate: float, seed: int) -> None:
        self.tastes = TasteFilter(factors, precision=precision, change=change, seed=seed)
        self._rate, self._seed = rate, seed
        self._lately = [np.zeros(0), np.zeros(0)]
        self._answered: tuple[Any, ...] = ()
        """The last user, item and side, and what was worked out for them, as long as nothing was learnt since."""
        self._first, self._first_squares = np.zeros((_HIDDEN, 0)), np.zeros((_HIDDEN, 0))
        self._last, self._last_squares = np.zeros(_HIDDEN), np.full(_HIDDEN, _SQUARES)
        self._grow(3 * factors + _OTHERS + 1)

    def enter_user(self, slot: int, born: int) -> None:
        """A user, the one of number `born`, takes a slot."""
        self.tastes.enter_user(slot, born)
        self._lately[0] = grown(self._lately[0], slot + 1)
        self._lately[0][slot] = 0.0

    def enter_item(self, slot: int, born: int) -> None:
        """An item takes a slot."""
        self.tastes.enter_item(slot, born)
        self._lately[1] = grown(self._lately[1], slot + 1)

    def answer(self, user: int, item: int, side: NDArray[np.float64], biases: Biases) -> float:
        """What is expected, given what else the event says, `side` (n,); of one that is unknown (-1) the bias of the other alone."""
        if user < 0 or item < 0:
            return self.tastes.answer(user, item)
        found = self._forward(user, item, side, biases)
        self._answered = (user, item, side, found)
        return found[-1]

    def answers(
        self, user: int, items: NDArray[np.int64], side: NDArray[np.float64], biases: Biases
    ) -> NDArray[np.float64]:
        """The same of items (n,)."""
        found = self.tastes.answers(user, items)
        if user < 0:
            return found
        count, k = len(items), self.tastes.factors
        x = np.empty((count, self._first.shape[1]))
        p, q = self.tastes.users[user, 0, 1:], self.tastes.items[items, 0, 1:]
        x[:, :k], x[:, k : 2 * k], x[:, 2 * k : 3 * k] = p * q, p, q
        n = 3 * k
        x[:, n] = _LOG * math.log1p(biases.counts(user, -1)[0])
        x[:, n + 1] = _LOG * np.log1p(biases.item_counts(items))
        x[:, n + 2], x[:, n + 3] = biases.of_user(user), biases.of_items(items)
        x[:, n + 4], x[:, n + 5] = self._lately[0][user], self._lately[1][items]
        x[:, n + _OTHERS :] = side[: x.shape[1] - n - _OTHERS]
        hidden = np.maximum(x.dot(self._first.T), 0.0)
        return found + hidden.dot(self._last[:_HIDDEN]) + x.dot(self._last[_HIDDEN:])

    def learn(self, user: int, item: int, side: NDArray[np.float64], label: float, biases: Biases) -> None:
        """Learn a label; both are known."""
        self._grow(3 * self.tastes.factors + _OTHERS + len(side))
        answered, self._answered = self._answered, ()
        if len(answered) and answered[:2] == (user, item) and answered[2] is side:
            x, hidden, answer = answered[3]
        else:
            x, hidden, answer = self._forward(user, item, side, biases)
        if len(x) < self._first.shape[1]:  # an input that had no part in the answer
            x = np.concatenate((x, side[len(x) - self._first.shape[1] :]))
        error = answer - label
        back = (error * self._last[:_HIDDEN]) * (hidden > 0.0)
        _descend(self._last, self._last_squares, error * np.concatenate((hidden, x)), self._rate)
        _descend(self._first, self._first_squares, back[:, None] * x, self._rate)
        above = label - biases.answer(user, item)
        for lately, slot, fade in zip(self._lately, (user, item), _LATELY, strict=True):
            lately[slot] += (1.0 - fade) * (above - lately[slot])
        self.tastes.learn(user, item, label)

    def arrays(self) -> dict[str, NDArray[Any]]:
        tastes = self.tastes.arrays("network")
        counts = [len(tastes[f"network_{name}"]) for name in ("users", "items")]
        return {
            **tastes,
            "network_first": np.stack((self._first, self._first_squares)),
            "network_last": np.stack((self._last, self._last_squares)),
            **{
                f"network_lately_{name}": lately[:count].copy()
                for name, lately, count in zip(("users", "items"), self._lately, counts, strict=True)
            },
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], users: int, items: int) -> None:
        """Raises `ValueError` where the arrays are of other shapes, or hold NaN."""
        self.tastes.restore(arrays, "network", users, items)
        first, last = arrays["network_first"], arrays["network_last"]
        lately = [arrays[f"network_lately_{name}"].copy() for name in ("users", "items")]
        inputs = first.shape[-1]
        if (first.shape, last.shape) != ((2, _HIDDEN, inputs), (2, _HIDDEN + inputs)):
            raise ValueError(f"weights {first.shape} and {last.shape} of {_HIDDEN} hidden units")
        if [len(each) for each in lately] != [users, items] or inputs < 3 * self.tastes.factors + _OTHERS + 1:
            raise ValueError(f"errors of {[len(each) for each in lately]}, or {inputs} inputs")
        if not all(np.isfinite(each).all() for each in (first, last, *lately)):
            raise ValueError("weights with NaN")
        self._first, self._first_squares = first[0].copy(), first[1].copy()
        self._last, self._last_squares = last[0].copy(), last[1].copy()
        self._lately = lately

    def _forward(
        self, user: int, item: int, side: NDArray[np.float64], biases: Biases
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Inputs, hidden units and the answer."""
        p, q = self.tastes.users[user, 0, 1:], self.tastes.items[item, 0, 1:]
        of_user, of_item = biases.counts(user, item)
        k, last = self.tastes.factors, self._last
        n = 3 * k
        x = np.empty(min(n + _OTHERS + len(side), self._first.shape[1]))
        np.multiply(p, q, out=x[:k])
        x[k : 2 * k], x[2 * k : n] = p, q
        x[n : n + _OTHERS] = (
            _LOG * math.log1p(of_user),
            _LOG * math.log1p(of_item),
            biases.of_user(user),
            biases.of_item(item),
            self._lately[0][user],
            self._lately[1][item],
        )
        x[n + _OTHERS :] = side[: len(x) - n - _OTHERS]  # what is new has no part yet
        hidden = self._first[:, : len(x)].dot(x)
        np.maximum(hidden, 0.0, out=hidden)
        known = last[:_HIDDEN].dot(hidden) + last[_HIDDEN : _HIDDEN + len(x)].dot(x)
        return x, hidden, self.tastes.answer(user, item) + float(known)

    def _grow(self, inputs: int) -> None:
        """Inputs of what else events say come last; those that are new begin without a part in the answer."""
        before = self._first.shape[1]
        if inputs > before:
            drawn = np.array([unit_weights(self._seed + 1, place, _HIDDEN) for place in range(before, inputs)]).T
            self._first = np.concatenate((self._first, drawn * inputs**-0.5), axis=1)
            more = inputs - before
            self._first_squares = np.pad(self._first_squares, ((0, 0), (0, more)), constant_values=_SQUARES)
            self._last = np.pad(self._last, (0, more))
            self._last_squares = np.pad(self._last_squares, (0, more), constant_values=_SQUARES)


def _descend(
    weights: NDArray[np.float64], squares: NDArray[np.float64], gradient: NDArray[np.float64], rate: float
) -> None:
    squares *= _FADE
    squares += gradient * gradient
    weights -= rate * gradient / np.sqrt(squares)
