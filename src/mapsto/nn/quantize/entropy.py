"""The clipping that keeps most of what a histogram tells: the least divergence between it and its quantized form.

``T* = argmin_T KL(P_T ‖ Q_T)`` over thresholds T: P holds what lies within ±T with the rest added to the outermost bins, Q the same
bins without that rest, merged into 2^bits levels and spread again over those that hold values. The bin of zero, which every code
represents exactly, counts like its neighbours (Migacz, "8-bit Inference with TensorRT", 2017, and NVIDIA's implementation of it).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["divergence", "entropy_range"]

_STRIDE = 16
"""Bins from one threshold that is tried to the next."""


def entropy_range(counts: NDArray[np.float64], low: float, high: float, bits: int) -> tuple[float, float]:
    """The ends of the range to cover, from a histogram of evenly spaced bins between `low` and `high`; 0 is within.

    >>> import numpy as np
    >>> values = np.abs(np.random.default_rng(0).normal(size=100_000))
    >>> counts, _ = np.histogram(np.append(values, 40.0), 2048, (0, 40.0))  # one value far off
    >>> low, high = entropy_range(counts.astype(float), 0.0, 40.0, bits=8)
    >>> low, 3 < high < 8
    (0.0, True)
    """
    counts = _without_zero(counts, low, high)
    bins, levels = len(counts), 2**bits
    width, farthest = (high - low) / bins, max(-low, high)
    best, least = (low, high), math.inf
    for number in [*range(levels, bins, _STRIDE), bins]:
        limit = farthest * number / bins
        first = max(0, round((-limit - low) / width))
        end = min(bins, round((limit - low) / width))
        if end - first < 2:
            continue
        found = divergence(counts, first, end, levels)
        if found < least:
            best, least = (max(low, -limit), min(high, limit)), found
    return best


def divergence(counts: NDArray[np.float64], first: int, end: int, levels: int) -> float:
    """KL(P ‖ Q) in nats for the range from bin `first` up to `end`; infinite where Q holds nothing."""
    inside = counts[first:end]
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[end:].sum()
    groups = np.arange(len(inside)) * levels // max(len(inside), levels)
    filled = inside > 0
    sums = np.bincount(groups, inside)
    members = np.bincount(groups, filled)
    q = np.where(filled, (sums / np.maximum(members, 1))[groups], 0.0)
    if not q.sum():
        return math.inf
    p, q = p / p.sum(), np.maximum(q / q.sum(), 1e-9)
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def _without_zero(counts: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    place = min(len(counts) - 1, int(-low / (high - low) * len(counts)))
    beside = [counts[i] for i in (place - 1, place + 1) if 0 <= i < len(counts)]
    smoothed = counts.copy()
    smoothed[place] = min(counts[place], float(np.mean(beside)))
    return smoothed
