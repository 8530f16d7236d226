"""A hole of a recipe: one of several values or step lists, a number of a range, a step that is kept or not, an order of steps."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Filled", "Hole", "Kind", "same"]

Kind: TypeAlias = Literal["choice", "range", "optional", "order"]
Filled: TypeAlias = "dict[str, Any]"
"""Hole → its value, of those holes that the branches taken have."""


@dataclass(frozen=True, kw_only=True)
class Hole:
    """What may stand in one place."""

    name: str
    kind: Kind
    options: tuple[Any, ...] = ()
    """Of a choice, an optional step or an order: plain values, of step lists and of what is no plain value its name."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False
    """Whether a range holds whole numbers alone."""
    default: Any = None
    parents: tuple[tuple[str, Any], ...] = ()
    """The choices that must be taken for this hole to exist: (hole, option)."""
    place: tuple[int, int] = field(default=(1, 1), compare=False)
    """Line and column."""

    def contains(self, value: Any) -> bool:
        """Whether a value may stand here."""
        if self.kind != "range":
            return any(same(value, option) for option in self.options)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    def draw(self, rng: Generator) -> Any:
        """A value, each alike likely; of a logarithmic range its logarithm."""
        if self.kind != "range":
            return self.options[int(rng.integers(len(self.options)))]
        return self.at(float(rng.random()))

    def at(self, share: float) -> Any:
        """The number of a range at a share of its way, 0 to 1."""
        low, high = self.low, self.high
        if self.step is not None:
            count = self.count
            return self.rounded(low + self.step * min(int(share * count), count - 1))
        if self.whole:
            low, high = low - 0.5 + (1e-9 if self.log else 0), high + 0.5
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        return self.rounded(value)

    def share_of(self, value: float) -> float:
        """Where in a range a number lies, 0 to 1."""
        if self.high == self.low:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def rounded(self, value: float) -> Any:
        """A number as it is written: whole, or with six digits; never out of the range."""
        if self.whole:
            return int(min(max(round(value), self.low), self.high))
        return min(max(float(f"{value:.6g}"), self.low), self.high)

    @property
    def count(self) -> int:
        """How many numbers a range with a step has."""
        return int((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def grid(self, points: int) -> Sequence[Any]:
        """All options; of a range all of few numbers, else so many, evenly spaced with both ends."""
        if self.kind != "range":
            return self.options
        if self.step is not None or (self.whole and self.high - self.low < points):
            return _Numbers(self)
        ends = [self._between(at / (points - 1)) for at in range(points)]
        return list(dict.fromkeys(ends))

    def _between(self, share: float) -> Any:
        if self.log:
            return self.rounded(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return self.rounded(self.low + share * (self.high - self.low))

    @property
    def middle(self) -> Any:
        """The middle of a range, of a logarithmic one of its logarithms."""
        return self.at(0.5) if self.step is not None else self._between(0.5)

    @property
    def size(self) -> float:
        """How many values there are; infinite for a range of numbers without a step."""
        if self.kind != "range":
            return len(self.options)
        if self.step is not None:
            return self.count
        return self.high - self.low + 1 if self.whole else math.inf


class _Numbers(Sequence[Any]):
    """All numbers of a range with few or with a step, each made where it is asked for: there may be billions."""

    def __init__(self, hole: Hole) -> None:
        self._hole = hole

    def __len__(self) -> int:
        return min(self._hole.count, sys.maxsize)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        place = at + len(self) if at < 0 else at
        if not 0 <= place < len(self):
            raise IndexError(at)
        return self._hole.rounded(self._hole.low + (self._hole.step or 1) * place)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same, a number and a truth value apart.

    >>> same(1, True), same(0.5, 0.5), same([1], [1])
    (False, True, True)
    """
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
