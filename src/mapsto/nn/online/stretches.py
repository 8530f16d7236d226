"""The stretches of a stream in which a learner did worst, each with a few of the events that it was most wrong about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block

__all__ = ["Stretches"]

SIZE = 200
"""Labels of a stretch; one begins where the last ends."""
_KEPT = 5
_EXAMPLES = 3
_COLUMNS = 12
"""Columns of an example that are kept, the first ones."""


class Stretches:
    """Keeps the five worst, the worst first; of two that are alike the earlier."""

    def __init__(self) -> None:
        self._count, self._error = 0, 0.0
        """Labels of the stretch at present, and the sum of their errors."""
        self._from = self._to = 0
        """Its first and last event, counted from 1."""
        self._examples: list[dict[str, Any]] = []
        self.worst: list[dict[str, Any]] = []
        """Each with ``from`` and ``to`` (events counted from 1), ``error`` (a mean), and ``examples``."""

    def see(
        self,
        start: int,
        block: Block,
        events: NDArray[np.int64],
        errors: NDArray[np.float64],
        wrong: NDArray[np.float64],
        told: Callable[[int], dict[str, Any]],
    ) -> None:
        """Take in labels.

        Parameters
        ----------
        start
            The number of the block's first event, from 0.
        block
            Where examples are taken from.
        events
            (n,), numbers in the block.
        errors
            (n,), of each answer.
        wrong
            (n,), how worth keeping each is as an example; 0 for not at all.
        told
            Of one of the n what an example says of its answer.
        """
        at, count = 0, len(events)
        while at < count:
            stop = min(count, at + SIZE - self._count)
            if not self._count:
                self._from = start + int(events[at]) + 1
            self._error = float(np.add.accumulate(np.concatenate(([self._error], errors[at:stop])))[-1])
            self._keep(start, block, events, wrong, told, at, stop)
            self._count += stop - at
            self._to = start + int(events[stop - 1]) + 1
            if self._count == SIZE:
                self._close()
            at = stop

    def snapshot(self) -> dict[str, Any]:
        """The state."""
        now = [self._count, self._error, self._from, self._to]
        return {"now": now, "examples": list(self._examples), "worst": list(self.worst)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from another's state."""
        self._count, self._error, self._from, self._to = state["now"]
        self._examples, self.worst = list(state["examples"]), list(state["worst"])

    def _keep(
        self,
        start: int,
        block: Block,
        events: NDArray[np.int64],
        wrong: NDArray[np.float64],
        told: Callable[[int], dict[str, Any]],
        at: int,
        stop: int,
    ) -> None:
        """The examples that are most worth it, of two alike the earlier."""
        least = self._examples[-1]["wrong"] if len(self._examples) == _EXAMPLES else 0.0
        order = at + np.argsort(-wrong[at:stop], kind="stable")[:_EXAMPLES]
        new = [
            {
                "event": start + int(events[place]) + 1,
                "wrong": float(wrong[place]),
                **told(place),
                **_given(block, int(events[place])),
            }
            for place in order.tolist()
            if wrong[place] > least
        ]
        if new:
            self._examples = sorted([*self._examples, *new], key=lambda each: -each["wrong"])[:_EXAMPLES]

    def _close(self) -> None:
        closed: dict[str, Any] = {
            "from": self._from,
            "to": self._to,
            "error": self._error / SIZE,
            "examples": self._examples,
        }
        self.worst = sorted([*self.worst, closed], key=lambda each: (-each["error"], each["from"]))[:_KEPT]
        self._count, self._error, self._examples = 0, 0.0, []


def _given(block: Block, event: int) -> dict[str, Any]:
    """An event's id and raw values, as JSON."""
    name = str(block.ids[event])
    values: dict[str, Any] = {}
    if block.has_x[event]:
        for column in list(block.x)[:_COLUMNS]:
            values[column] = _cell(block.x[column][event])
    return {**({"id": short(name)} if name else {}), "values": values}


def _cell(value: Any) -> float | str | None:
    if isinstance(value, (float, int, np.floating, np.integer)):
        number = float(cast("float", value))
        return number if np.isfinite(number) else None
    shape = getattr(value, "shape", ())
    if shape:
        return f"array of shape {shape}"
    return short(str(value)) or None
