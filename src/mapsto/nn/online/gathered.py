"""Answers to blocks of few events, put together before they are counted: what is counted is the same, and costs little an event.

A source that gives its events one by one would otherwise pay for a whole block's bookkeeping with each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.online.learning import Answers

__all__ = ["Gathered"]

_FEW = 32
"""Events of a block that is put together with others."""
_MOST = 256

Counted = Callable[[int, Block, "NDArray[np.float64]", "list[Answers]"], None]
"""(number of the first event, events, their scores, answers to them) of blocks that are to be counted."""


class Gathered:
    """Parts of a stream on their way to `counted`; `flush` gives on what has gathered."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self._parts: list[tuple[int, Block, NDArray[np.float64], list[Answers]]] = []
        self._events = 0

    def add(self, start: int, part: Block, scores: NDArray[np.float64], answers: list[Answers]) -> None:
        """The part that follows on those before."""
        if len(part) > _FEW:
            self.flush()
            self._counted(start, part, scores, answers)
            return
        if self._parts and not _alike(self._parts[0][1], part):
            self.flush()
        self._parts.append((start, part, scores, answers))
        self._events += len(part)
        if self._events >= _MOST:
            self.flush()

    def flush(self) -> None:
        parts, self._parts, self._events = self._parts, [], 0
        if not parts:
            return
        if len(parts) == 1:
            self._counted(*parts[0])
            return
        blocks = [part for _, part, _, _ in parts]
        outputs = max(scores.shape[1] for _, _, scores, _ in parts)
        table = np.concatenate([_wide(scores, outputs) for _, _, scores, _ in parts])
        self._counted(parts[0][0], _joined(blocks), table, _answered(parts, outputs))


def _answered(parts: list[tuple[int, Block, Any, list[Answers]]], outputs: int) -> list[Answers]:
    first = parts[0][0]
    told = [(start - first, each) for start, _, _, answers in parts for each in answers]
    if not told:
        return []
    return [
        told[0][1]._replace(
            events=np.concatenate([each.events + moved for moved, each in told]),
            scores=np.concatenate([_wide(each.scores, outputs) for _, each in told]),
            labels=np.concatenate([each.labels for _, each in told]),
            ranks=_ranks([each for _, each in told]),
            parts=_parts([each for _, each in told]),
        )
    ]


def _parts(told: list[Answers]) -> dict[str, NDArray[np.float64]] | None:
    """Of all; None where the first had none: a learner has the same parts at every event."""
    first = told[0].parts
    if first is None:
        return None
    return {name: np.concatenate([(each.parts or {})[name] for each in told]) for name in first}


def _ranks(told: list[Answers]) -> NDArray[np.float64] | None:
    """Of all, NaN where one had none; None where no one had."""
    if all(each.ranks is None for each in told):
        return None
    return np.concatenate([np.full(len(each.labels), np.nan) if each.ranks is None else each.ranks for each in told])


def _wide(scores: NDArray[np.float64], outputs: int) -> NDArray[np.float64]:
    """Scores with a column for each class that is known by now: 0, or NaN for an event that was set aside."""
    more = outputs - scores.shape[1]
    if not more:
        return scores
    wide = np.zeros((len(scores), outputs))
    wide[:, : scores.shape[1]] = scores
    if scores.shape[1]:
        wide[np.isnan(scores[:, 0])] = np.nan
    return wide


def _alike(one: Block, other: Block) -> bool:
    """Whether two blocks have the same columns of the same types, so that they can be one."""
    mine, others = one.x, other.x
    if len(mine) != len(others) or one.y.dtype is not other.y.dtype:
        return False
    for name, column in others.items():
        known = mine.get(name)
        if known is None or known.dtype is not column.dtype or known.shape[1:] != column.shape[1:]:
            return False  # types that are equal are mostly one object; where they are not, nothing is lost
    return True


def _joined(blocks: list[Block]) -> Block:
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    return Block(
        times=np.concatenate([block.times for block in blocks]),
        ids=np.concatenate([block.ids for block in blocks]),
        x={name: np.concatenate([block.x[name] for block in blocks]) for name in blocks[0].x},
        has_x=np.concatenate([block.has_x for block in blocks]),
        y=np.concatenate([block.y for block in blocks]),
        has_y=np.concatenate([block.has_y for block in blocks]),
        next=blocks[-1].next,
        broken={
            start + event: why
            for start, block in zip(starts, blocks, strict=False)
            for event, why in block.broken.items()
        },
    )
