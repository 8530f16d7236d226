"""The items among which one that was liked is ranked: drawn ones that the user has not rated.

So He et al. ("Neural Collaborative Filtering", 2017) measure hit rate and NDCG. All are taken where there are not more of them than are
wanted.
"""

from __future__ import annotations

from collections.abc import Container, Sized
from typing import Protocol

from mapsto.nn.online.draws import numbers_below

__all__ = ["Candidates"]

_AT_ONCE = 192
_MOST_ROUNDS = 8
"""Of draws: of a user who has rated nearly all fewer are found."""


class _Had(Container[int], Sized, Protocol): ...


class Candidates:
    """Draws from a seed and a counter.

    >>> candidates = Candidates(3, seed=0)
    >>> candidates.beside(0, {1, 2}, known=5), len(candidates.beside(0, {1, 2}, known=50))
    ([3, 4], 3)
    """

    def __init__(self, wanted: int, *, seed: int) -> None:
        self._wanted, self._seed = wanted, seed
        self.drawn = 0
        """How many numbers were drawn."""

    def beside(self, item: int, had: _Had, *, known: int) -> list[int]:
        """Items, of numbers below `known`, that are neither `item` nor among those the user has `had`; each once."""
        if known - len(had) - 1 <= self._wanted:
            return [each for each in range(known) if each != item and each not in had]
        chosen: dict[int, None] = {}
        for _ in range(_MOST_ROUNDS):
            drawn = numbers_below(known, self._seed, self.drawn, _AT_ONCE).tolist()
            self.drawn += _AT_ONCE
            chosen.update(dict.fromkeys([each for each in drawn if each not in had]))
            chosen.pop(item, None)
            if len(chosen) >= self._wanted:
                break
        return [*chosen][: self._wanted]
