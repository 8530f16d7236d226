"""Random numbers of an online learner: a function of its seed and of a counter in its state, so that they need no generator to be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["number_below", "numbers_below", "unit_weights"]

_MASK = (1 << 64) - 1


def unit_weights(seed: int, place: int, count: int) -> NDArray[np.float64]:
    """Weights (count,) of mean 0 and variance 1, drawn uniformly: those of one input, whichever inputs came before.

    >>> unit_weights(0, 3, 2).tolist() == unit_weights(0, 3, 5)[:2].tolist()
    True
    """
    raw = np.random.Philox(key=seed, counter=[0, place, 0, 0]).random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0) * 3.0**0.5


def number_below(limit: int, seed: int, counter: int) -> int:
    """A whole number from 0 up to `limit`, by SplitMix64 (Steele, Lea and Flood, 2014).

    >>> sorted({number_below(3, 0, counter) for counter in range(20)})
    [0, 1, 2]
    """
    mixed = (seed * 0xD1342543DE82EF95 + (counter + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((mixed ^ (mixed >> 31)) * limit) >> 64


def numbers_below(limit: int, seed: int, counter: int, count: int) -> NDArray[np.int64]:
    """So many whole numbers (count,) from 0 up to `limit`, which is below 2³²: those of as many counters, at once.

    >>> numbers_below(10, 0, 0, 3).tolist() == [number_below(10, 0, counter) for counter in range(3)]
    True
    """
    begin = (seed * 0xD1342543DE82EF95 + (counter + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = np.arange(count, dtype=np.uint64)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64(begin)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    # limit is below 2³², so that the upper half of the product is that of the upper half, plus what the lower half carries into it
    low = (mixed & np.uint64(0xFFFFFFFF)) * np.uint64(limit)
    return (((mixed >> np.uint64(32)) * np.uint64(limit) + (low >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)
