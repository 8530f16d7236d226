"""Successive halving on a stream: all members learn for a while, then the better half, until what is left costs no more than its share.

Rounds of halving are those of Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016. A
stream has no end, so that all members are tried again whenever enough was saved to pay for it. Costs are formulas and no clock is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.selection.chooser import Chooser, checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Halving"]

_MIXING = 25.0
"""Microseconds that the mixture itself costs an event, however many learn."""
ROUND = 4
"""Segments between two halvings."""
_MEMORY = 0.998
"""A right answer counts so much of the next one."""
_LEAST_REST = 16
"""Segments, at least, between two trials of all members, times the segments that a trial takes."""


class Halving(Chooser):
    """Keeps what is spent below `share` of what all members would cost, but for the first trial of all, which is paid back.

    >>> halving, costs, none = Halving(3, share=0.4, seed=0), np.array([100.0, 100.0, 200.0]), np.zeros(0)
    >>> for _ in range(12):
    ...     chosen = halving.choose(costs, "", none)
    ...     for _ in range(64):
    ...         halving.learn(chosen, np.array([0.0, 1.0, 0.0]), "", none)
    >>> chosen.tolist()
    [False, True, False]
    """

    def __init__(self, members: int, *, share: float, seed: int) -> None:
        super().__init__(members, share=share, seed=seed)
        self._right, self._weights = np.zeros(members), np.zeros(members)
        """Discounted right answers, and how many they are of."""
        self._awake = np.ones(members, np.bool_)
        self._counts = np.zeros(members)
        """Segments that each took."""
        self._money = np.zeros(2)
        """What was spent and what might have been, in units of the cost of all members for a segment."""
        self._phase = [0, 0, 0]
        """Segments of this phase, of the trial of all members that came before, and trials so far."""

    def choose(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self._share >= 1.0:
            self._counts += 1.0
            return self._awake.copy()
        whole = float(costs.sum()) + _MIXING
        part, room = costs / whole, self._allowed - _MIXING / whole
        segments, trial, trials = self._phase
        fits = float(part[self._awake].sum()) <= room
        if not trials:
            self._awake[:], self._phase = True, [0, 0, 1]
        elif not fits and segments and segments % ROUND == 0:
            self._halve(part, room)
            self._phase[1] = trial + ROUND
        elif fits and segments >= _LEAST_REST * max(trial, ROUND) and self._saved >= 2 * ROUND:
            self._awake[:], self._phase = True, [0, 0, trials + 1]
        self._phase[0] += 1
        self._money += (float(part[self._awake].sum()) + _MIXING / whole, self._share)
        self._counts[self._awake] += 1.0
        return self._awake.copy()

    def best(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self._awake.copy()

    @property
    def _saved(self) -> float:
        """Segments of all members that could still be paid for."""
        return float(self._money[1] - self._money[0])

    @property
    def _allowed(self) -> float:
        """The share that those that are awake may cost: less as long as more was spent than should have been."""
        return self._share if self._saved >= 0 else 0.9 * self._share

    def _halve(self, part: NDArray[np.float64], room: float) -> None:
        """Leave the better half awake, and where only as many are left as there is `room` for, those."""
        order = np.argsort(-self._worth(), kind="stable")
        awake = [int(member) for member in order if self._awake[member]]
        keep = awake[: max(1, len(awake) // 2)]
        if float(part[keep].sum()) <= room or len(awake) <= 2:
            keep, spent = [], 0.0
            for member in awake:  # the best that fit, one after the other
                if spent + float(part[member]) <= room:
                    keep.append(member)
                    spent += float(part[member])
            keep = keep or [min(range(self._members), key=lambda member: float(part[member]))]
        self._awake[:] = False
        self._awake[keep] = True

    def _worth(self) -> NDArray[np.float64]:
        """How good each member is: its discounted share of right answers."""
        return self._right / np.maximum(self._weights, 1.0)

    def learn(
        self,
        there: NDArray[np.bool_],
        right: NDArray[np.float64],
        user: str,
        context: NDArray[np.float64],
    ) -> None:
        if self._share >= 1.0:
            return
        self._right[there] = _MEMORY * self._right[there] + right[there]
        self._weights[there] = _MEMORY * self._weights[there] + 1.0

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "right": self._right.copy(),
            "weights": self._weights.copy(),
            "awake": self._awake.astype(np.float64),
            "counts": self._counts.copy(),
            "money": self._money.copy(),
        }

    def values(self) -> dict[str, Any]:
        return {"phase": list(self._phase)}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        each = (self._members,)
        self._right, self._weights, self._counts = (
            checked(arrays[name], each) for name in ("right", "weights", "counts")
        )
        self._awake = checked(arrays["awake"], each).astype(np.bool_)
        self._money = checked(arrays["money"], (2,))
        first, second, third = values["phase"]
        self._phase = [int(first), int(second), int(third)]

    def tables(self, names: Sequence[str]) -> list[dict[str, Any]]:
        if self._share >= 1.0:
            return []
        segments = max(float(self._counts.max()), 1.0)
        rows = [
            [name, 100 * float(count) / segments, "now" if awake else ""]
            for name, count, awake in zip(names, self._counts, self._awake, strict=True)
        ]
        spent = 100 * float(self._money[0]) / max(float(self._money[1]) / self._share, 1e-9)
        allowed = f"{100 * self._share:.0f} % allowed"
        return [
            {
                "title": f"What was spent: {spent:.0f} % of the cost of all members, by their formulas, of {allowed}",
                "columns": ["member", "share of the stream that it learnt", "learns"],
                "rows": rows,
                "units": {"share of the stream that it learnt": "%"},
            }
        ]
