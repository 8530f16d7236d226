"""The drifts that detectors mark on a learner's error, its confidence and its stream's numbers, for the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.drift.monitor import Monitor
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block

__all__ = ["Drifts"]

_MOST = 200


class Drifts:
    """Keeps the last 200 marks.

    Parameters
    ----------
    detectors
        Their names. Raises `SpecError` for one that there is not.
    values
        Whether errors are those of numbers.
    """

    def __init__(self, detectors: Sequence[str], *, values: bool) -> None:
        self._values = values
        chosen = {signal: tuple(detectors) for signal in ("error", "confidence", "features")}
        self._monitor = Monitor(chosen, values=values)
        self.count = 0
        """Marks in all."""
        self.last: list[dict[str, Any]] = []
        """Each with its ``event``, counted from 1, and ``what`` marked it."""

    def see(
        self,
        start: int,
        block: Block,
        scores: NDArray[np.float64],
        errors: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
    ) -> None:
        """Take in a block: the scores (N, K) of its events, and the errors of those that had labels with their numbers."""
        of_all = np.full(len(block), np.nan)
        for events, values in errors:
            of_all[events] = values
        sure = np.full(len(block), np.nan)
        if not self._values and scores.shape[1]:
            sure[block.has_x] = scores.max(1)[block.has_x]
        columns = {name: column for name, column in block.x.items() if column.dtype == np.float64 and column.ndim == 1}
        for mark in self._monitor.update(start, of_all, sure, columns):
            self.count += 1
            signal = short(mark.signal.replace(":", " ", 1))
            self.last = [*self.last[1 - _MOST :], {"event": mark.event, "what": f"{signal} ({mark.detector})"}]

    def snapshot(self) -> dict[str, Any]:
        """The state."""
        return {"monitor": self._monitor.snapshot(), "count": self.count, "last": [dict(each) for each in self.last]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from another's state."""
        self._monitor.restore(state["monitor"])
        self.count, self.last = int(state["count"]), list(state["last"])
