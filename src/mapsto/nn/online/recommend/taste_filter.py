"""Biased matrix factorisation whose factors are Gaussians, updated by each rating: what is still uncertain moves far, what is known little.

``r = b_u + b_i + p_u·q_i + ε``. With the item's means held still this is linear in the user's ``(b_u, p_u)`` and the other way round,
so that each is updated as by a Kalman filter whose covariance is kept diagonal: ``m += v x e / s``, ``v += τ - (v x)² / s`` with the
error e and ``s = σ² + Σ v_p x_q² + Σ v_q x_p² + Σ v_p v_q``. τ, which each event adds, lets tastes drift; the prior's precision is the
regularisation (Stern, Herbrich and Graepel, "Matchbox: Large Scale Online Bayesian Recommendations", 2009; Koren, Bell and Volinsky,
"Matrix Factorization Techniques for Recommender Systems", 2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.draws import unit_weights
from mapsto.nn.online.recommend.known import grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TasteFilter"]

_BEGIN = 0.1
"""The standard deviation of the first means, which are drawn so that factors come to differ."""
_NOISE = 0.8
"""σ² at the beginning, where labels have variance 1."""
_LEAST_NOISE = 0.01
_NOISE_RATE = 0.002


class TasteFilter:
    """Means and variances (count, 1 + factors) of users and of items; column 0 is the bias. Labels are standardised.

    >>> tastes = TasteFilter(4, precision=5.0, change=1e-4, seed=0)
    >>> tastes.enter_user(0, 0)
    >>> tastes.enter_item(0, 0)
    >>> for _ in range(20):
    ...     tastes.learn(0, 0, 1.5)
    >>> round(tastes.answer(0, 0), 1)
    1.5
    """

    def __init__(self, factors: int, *, precision: float, change: float, seed: int) -> None:
        self.factors, self._change, self._seed = factors, change, seed
        self._prior = 1.0 / precision
        self.users, self.items = (np.zeros((0, 2, 1 + factors)) for _ in range(2))
        """(count, 2, 1 + factors): means and variances."""
        self._both = np.zeros((2, 2, 1 + factors))
        """Room for a user and an item."""
        self._counts = [0, 0]
        self._noise = _NOISE

    def enter_user(self, slot: int, born: int) -> None:
        """A user, the one of number `born`, takes a slot."""
        self.users = self._entered(self.users, slot, 2 * born)
        self._counts[0] = max(self._counts[0], slot + 1)

    def enter_item(self, slot: int, born: int) -> None:
        """An item takes a slot."""
        self.items = self._entered(self.items, slot, 2 * born + 1)
        self._counts[1] = max(self._counts[1], slot + 1)

    def answer(self, user: int, item: int) -> float:
        """What is expected; of one that is unknown (-1) the other's bias alone."""
        if user < 0 or item < 0:
            return (float(self.users[user, 0, 0]) if user >= 0 else 0.0) + (
                float(self.items[item, 0, 0]) if item >= 0 else 0.0
            )
        p, q = self.users[user, 0], self.items[item, 0]
        return float(p[1:].dot(q[1:]) + p[0] + q[0])

    def answers(self, user: int, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same of items (n,)."""
        means = self.items[items, 0]
        if user < 0:
            return means[:, 0]
        p = self.users[user, 0]
        return means[:, 1:].dot(p[1:]) + means[:, 0] + p[0]

    def learn(self, user: int, item: int, label: float) -> None:
        """Learn a label; both are known."""
        both = self._both
        both[0], both[1] = self.users[user], self.items[item]
        means, variances = both[:, 0], both[:, 1]
        x = means[::-1].copy()
        x[:, 0] = 1.0
        error = label - float(means[0, 1:].dot(means[1, 1:]) + means[0, 0] + means[1, 0])
        gain = variances * x
        known = float(gain.ravel().dot(x.ravel()) + variances[0, 1:].dot(variances[1, 1:]))
        s = self._noise + known
        means += gain * (error / s)
        gain *= gain
        gain *= -1.0 / s
        gain += self._change
        variances += gain
        self.users[user], self.items[item] = both[0], both[1]
        self._noise += _NOISE_RATE * (max(error * error - known, _LEAST_NOISE) - self._noise)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        users, items = self._counts
        return {
            f"{prefix}_users": self.users[:users].copy(),
            f"{prefix}_items": self.items[:items].copy(),
            f"{prefix}_noise": np.array([self._noise]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], prefix: str, users: int, items: int) -> None:
        """Raises `ValueError` where the arrays are of other shapes, or hold NaN."""
        mine = [arrays[f"{prefix}_{name}"].copy() for name in ("users", "items")]
        wanted = [(count, 2, 1 + self.factors) for count in (users, items)]
        (noise,) = arrays[f"{prefix}_noise"].tolist()
        if [each.shape for each in mine] != wanted or not all(np.isfinite(each).all() for each in mine) or noise <= 0:
            raise ValueError(f"{prefix}: factors {[each.shape for each in mine]} where {wanted} are, or NaN")
        self.users, self.items = mine
        self._counts, self._noise = [users, items], noise

    def _entered(self, rows: NDArray[np.float64], slot: int, place: int) -> NDArray[np.float64]:
        rows = grown(rows, slot + 1)
        rows[slot, 0, 0] = 0.0
        rows[slot, 0, 1:] = _BEGIN * unit_weights(self._seed, place, self.factors)
        rows[slot, 1] = self._prior
        return rows
