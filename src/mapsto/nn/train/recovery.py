"""What a training that diverges goes back to: the state at the beginning of the last epoch that went well, at a tenth of the rate.

The state at the end of that epoch will not do: its last step may have been the one that was too far, which only the next loss shows.
"""

from __future__ import annotations

import math
from typing import Final

from mapsto.process import State

__all__ = ["RECOVERIES", "Recovery"]

RECOVERIES: Final = 8
"""So often a training may go back: from a rate of 10 down to 1e-7."""


class Recovery:
    """The last good state of a training, and how much lower its rate is since.

    Parameters
    ----------
    state
        What `snapshot` gave; empty where training begins.

    >>> recovery = Recovery({})
    >>> for step, loss in enumerate([math.inf, 2.0, 1.5]):
    ...     recovery.keep({"step": step}, loss)
    >>> recovery.back(), recovery.scale, recovery.count
    ({'step': 1}, 0.1, 1)
    """

    def __init__(self, state: State) -> None:
        self.count = int(state.get("count", 0))
        """How often it was gone back."""
        self.lowest = float(state.get("lowest", math.inf))
        """The lowest mean loss of an epoch."""
        self._good: State = state.get("good", {})
        self._next: State = state.get("next", {})
        """The state at the end of that epoch, which is good if the next one is."""

    @property
    def scale(self) -> float:
        """What the rate is multiplied by."""
        return 10.0**-self.count

    def begin(self, loss: float) -> None:
        """Take the loss of the very first step, before anything was learnt, for the lowest so far."""
        if math.isinf(self.lowest):
            self.lowest = loss

    def keep(self, state: State, loss: float = math.inf) -> None:
        """Keep the state at the end of an epoch that went well, with that mean loss; first that at the beginning."""
        self._good, self._next, self.lowest = self._next or state, state, min(self.lowest, loss)

    def back(self) -> State:
        """The last good state, which is gone back to."""
        self.count += 1
        self._next = self._good
        return self._good

    def snapshot(self) -> State:
        """As `__init__` takes it."""
        state: State = {"count": self.count, "good": self._good, "next": self._next}
        if math.isfinite(self.lowest):
            state["lowest"] = self.lowest
        return state
