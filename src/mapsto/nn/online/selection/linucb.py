"""LinUCB: of each member a linear guess of whether it will be right, from the event's features, and room for doubt; the highest takes it.

``argmax_m θ_mᵀ x + α √(xᵀ A_m⁻¹ x)``, ``A_m = I + Σ x xᵀ`` over its events (Li et al., "A Contextual-Bandit Approach to Personalized News
Article Recommendation", 2010). A_m forgets, ``A_m ← γ A_m + (1 − γ) I + x xᵀ``, so that a member is tried again where the rule drifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mapsto.nn.online.selection.chooser import Chooser, checked, worth_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONTEXT", "LinUcb"]

CONTEXT = 17
"""Features of an event: a bias, and its columns hashed to 16."""
_ALPHA = 0.5
_MEMORY = 0.999


class LinUcb(Chooser):
    """One member an event.

    >>> chooser, costs = LinUcb(2, share=1.0, seed=0), np.ones(2)
    >>> contexts = [np.eye(CONTEXT)[0] + np.eye(CONTEXT)[side] for side in (1, 2)]
    >>> for event in range(400):  # each is right on one side
    ...     chosen = chooser.choose(costs, "", contexts[event % 2])
    ...     chooser.learn(chosen, np.eye(2)[event % 2], "", contexts[event % 2])
    >>> [int(chooser.choose(costs, "", each).argmax()) for each in contexts]
    [0, 1]
    """

    each_event: ClassVar[bool] = True
    contextual: ClassVar[bool] = True

    def __init__(self, members: int, *, share: float, seed: int) -> None:
        super().__init__(members, share=share, seed=seed)
        self._a = np.tile(np.eye(CONTEXT), (members, 1, 1))
        self._b = np.zeros((members, CONTEXT))

    def choose(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self._highest(costs, context, _ALPHA)

    def best(self, costs: NDArray[np.float64], user: str, context: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self._highest(costs, context, 0.0)

    def _highest(self, costs: NDArray[np.float64], context: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
        scores = np.empty(self._members)
        for member in range(self._members):
            known = np.linalg.solve(self._a[member], np.stack([context, self._b[member]], 1))
            doubt = float(context.dot(known[:, 0]))
            scores[member] = float(context.dot(known[:, 1])) + alpha * max(doubt, 0.0) ** 0.5
        return worth_most(scores, costs, self._share)

    def learn(
        self,
        there: NDArray[np.bool_],
        right: NDArray[np.float64],
        user: str,
        context: NDArray[np.float64],
    ) -> None:
        for member in np.flatnonzero(there).tolist():
            fresh = (1.0 - _MEMORY) * np.eye(CONTEXT) + np.multiply.outer(context, context)
            self._a[member] = _MEMORY * self._a[member] + fresh
            self._b[member] = _MEMORY * self._b[member] + right[member] * context

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"a": self._a.copy(), "b": self._b.copy()}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._a = checked(arrays["a"], (self._members, CONTEXT, CONTEXT))
        self._b = checked(arrays["b"], (self._members, CONTEXT))
