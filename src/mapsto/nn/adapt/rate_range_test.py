"""The range test: the learning rate rises step by step, and the loss says from where on it is too high.

``η_k = η_min (η_max / η_min)^(k / (K − 1))``; a tenth of the highest rate at which the smoothed loss is still as low as it gets is proposed
(Smith, "Cyclical Learning Rates for Training Neural Networks", 2017; the tenth: Howard and Gugger, "fastai", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["HIGHEST", "LOWEST", "STEPS", "RangeTest", "has_blown_up", "proposed", "rates"]

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 49
"""From which rate to which, and in how many steps: eight to each power of ten."""
_SMOOTHING: Final = 0.8
_TOLERANCE, _NOISE = 0.05, 0.01
"""A smoothed loss no more than this share, and this much, above the lowest one is as low: batches differ."""


class RangeTest(NamedTuple):
    """What a test has found."""

    rates: list[float]
    losses: list[float]
    proposed: float


def rates(steps: int = STEPS) -> Iterator[float]:
    """The rates of the test.

    >>> [f"{rate:.0e}" for rate in rates(4)]
    ['1e-06', '1e-04', '1e-02', '1e+00']
    """
    for step in range(steps):
        yield LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1))


def has_blown_up(losses: Sequence[float]) -> bool:
    """Whether the last loss says that no higher rate need be tried: no number, or four times the lowest.

    >>> has_blown_up([1.0, 0.5, 2.0]), has_blown_up([1.0, 0.5, 2.2]), has_blown_up([float("nan")])
    (False, True, True)
    """
    return not math.isfinite(losses[-1]) or losses[-1] > 4 * min(losses) + 0.1


def proposed(tried: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the highest rate at which the smoothed loss is as low as it gets; losses that are no numbers count as infinite.

    A loss that stays as it is until it rises, as that of a head that was fitted before, gives a tenth of the rate where it begins to rise.

    >>> round(proposed([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [2.0, 1.5, 0.8, 3.0, 90.0]), 6)
    0.001
    """
    smooth = _smoothed(losses)
    enough = (1 + _TOLERANCE) * min(smooth) + _NOISE
    return max(rate for rate, loss in zip(tried, smooth, strict=True) if loss <= enough) / 10


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Running means in which what is older counts less, the first ones set right for having little before them."""
    mean, weight, found = 0.0, 0.0, list[float]()
    for loss in losses:
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * (loss if math.isfinite(loss) else math.inf)
        weight = _SMOOTHING * weight + 1 - _SMOOTHING
        found.append(mean / weight)
    return found
