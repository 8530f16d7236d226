"""KSWIN: the latest values of a window against as many drawn from the older ones, by the test of Kolmogorov and Smirnov.

A drift where the p-value of their largest distance D is at most α, for two samples of r values
``P(D ≥ h / r) = 2 Σ_i (-1)^(i-1) C(2r, r - i h) / C(2r, r)`` (Raab, Heusinger and Schleif, "Reactive Soft Prototype Computing for Concept
Drift Streams", 2020; Gnedenko and Korolyuk, 1951).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mapsto.nn.online.drift.detector import Detector

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Kswin"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_AT_ONCE = 64
"""Tests whose draws are made together."""


class Kswin(Detector):
    """A window of values, the latest of which are tested. It answers to any change of the distribution, not of the mean alone.

    Parameters
    ----------
    alpha
        α; as each test may raise a false alarm, well below 0.01.
    window, latest
        Values that are kept, and how many of them are the latest, r; the paper has 100 and 30, which miss smaller changes.
    every
        Values after which it tests; the paper has 1, which costs ten times as much.
    seed
        Of the draws, which depend on it and on the number of the test alone.

    >>> kswin = Kswin(alpha=1e-4)
    >>> draw = np.random.default_rng(0).random(2000)
    >>> [n for n in range(2000) if kswin.update(draw[n] if n < 1000 else 0.45 + draw[n] / 10)]
    [1071]
    """

    name: ClassVar[str] = "kswin"

    def __init__(
        self, *, alpha: float = 1e-4, window: int = 300, latest: int = 100, every: int = 16, seed: int = 0
    ) -> None:
        if not 0 < latest <= window - latest:
            raise ValueError(f"{latest} latest values of a window of {window}: the older ones must be as many")
        self._window, self._latest, self._every, self._seed = window, latest, every, seed
        self._least = _least_distance(latest, alpha)
        self._kept: list[float] = []
        self._count = self._tests = 0

    def update(self, value: float) -> bool:
        kept = self._kept
        kept.append(value)
        self._count += 1
        if len(kept) >= 2 * self._window:
            del kept[: -self._window]
        if self._count % self._every or len(kept) < self._window:
            return False
        values = np.array(kept[-self._window :])
        older, latest = values[: -self._latest], values[-self._latest :]
        rows = _draws(self._seed, self._tests // _AT_ONCE, len(older), self._latest)
        drawn = older[rows[self._tests % _AT_ONCE]]
        self._tests += 1
        if _distance(drawn, latest) < self._least:
            return False
        self.change = float(latest.mean() - older.mean())
        self._kept = latest.tolist()
        return True

    def state(self) -> dict[str, Any]:
        return {
            "kept": np.array(self._kept[-self._window :], np.float64),
            "values": np.array([self._count, self._tests, self.change], np.float64),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._kept = state["kept"].tolist()
        count, tests, self.change = state["values"].tolist()
        self._count, self._tests = int(count), int(tests)


@lru_cache(maxsize=8)
def _draws(seed: int, turn: int, count: int, most: int) -> NDArray[np.int64]:
    """Which older values each of the tests of a turn takes (tests, most), without repetition."""
    first = (seed * _GOLDEN + turn * _AT_ONCE * count) & _MASK
    keys = _mixed(np.arange(_AT_ONCE * count, dtype=np.uint64) + np.uint64(first))
    return np.argsort(keys.reshape(_AT_ONCE, count), axis=1, kind="stable")[:, :most]


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers without a pattern, by the steps of SplitMix64 (Steele, Lea and Flood, 2014)."""
    keys = keys * np.uint64(_GOLDEN)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _distance(one: NDArray[Any], other: NDArray[Any]) -> int:
    """R D: the largest difference of how many values of each lie at or below a place. `one` is sorted."""
    one.sort()
    latest = np.sort(other)
    places = np.concatenate((one, latest))
    return int(np.abs(one.searchsorted(places, "right") - latest.searchsorted(places, "right")).max())


@lru_cache
def _least_distance(count: int, alpha: float) -> int:
    """The least r D whose p-value is at most alpha, and that is above r / 10; count + 1 where there is none."""
    for distance in range(1, count + 1):
        if distance > count / 10 and _p_value(distance, count) <= alpha:
            return distance
    return count + 1


def _p_value(distance: int, count: int) -> float:
    """P(r D ≥ distance) of two samples of `count` values of one distribution.

    >>> _p_value(3, 5) == 2 * math.comb(10, 2) / math.comb(10, 5)
    True
    """
    terms = range(1, count // distance + 1)
    ways = sum((-1) ** (i - 1) * math.comb(2 * count, count - i * distance) for i in terms)
    return min(1.0, 2 * ways / math.comb(2 * count, count))
