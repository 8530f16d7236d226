"""Latency, measured so that two figures can be compared: warm-up, many runs, and rounds that take turns.

On a shared machine only ratios hold: what else runs slows down one whole round, so each round times every candidate, and a
speed-up is the median over rounds of the ratio within one round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Timing", "interleaved", "speedup", "torch_threads"]


@dataclass(frozen=True)
class Timing:
    """Times of single calls in milliseconds, round by round."""

    rounds: tuple[tuple[float, ...], ...]

    @property
    def medians(self) -> tuple[float, ...]:
        """The median of each round."""
        return tuple(float(np.median(times)) for times in self.rounds)

    @property
    def p50(self) -> float:
        """The median of the rounds' medians."""
        return float(np.median(self.medians))

    @property
    def p99(self) -> float:
        """The 99th percentile of all calls."""
        return float(np.percentile(np.concatenate(self.rounds), 99))

    @property
    def mean(self) -> float:
        """The mean of all calls."""
        return float(np.mean(np.concatenate(self.rounds)))


def interleaved(
    callables: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    seconds: float = 0.2,
    least: int = 10,
    most: int = 1000,
    warmup: int = 10,
) -> dict[str, Timing]:
    """Time several callables in turn.

    Parameters
    ----------
    callables
        Name → what to call without arguments.
    rounds
        How often each gets its turn.
    seconds, least, most
        A turn takes about so many seconds, but at least `least` and at most `most` calls.
    warmup
        Calls before the first turn that are not counted.

    >>> timings = interleaved({"short": lambda: sum(range(100)), "long": lambda: sum(range(10000))}, rounds=3, seconds=0.01)
    >>> len(timings["long"].medians), speedup(timings["long"], timings["short"])[0] > 2
    (3, True)
    """
    counts: dict[str, int] = {}
    for name, call in callables.items():
        once = min(_timed(call) for _ in range(max(2, warmup)))
        counts[name] = int(min(most, max(least, seconds * 1000 / max(once, 1e-6))))
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in callables}
    with _without_collection():
        for _ in range(rounds):
            for name, call in callables.items():
                call()
                found[name].append(tuple(_timed(call) for _ in range(counts[name])))
    return {name: Timing(tuple(turns)) for name, turns in found.items()}


def speedup(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times as fast the second is: median, least and most over the rounds."""
    ratios = [a / b for a, b in zip(slow.medians, fast.medians, strict=True)]
    return float(np.median(ratios)), min(ratios), max(ratios)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def _without_collection() -> Generator[None]:
    """A garbage collection in the middle of a call would be counted as its own time."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def torch_threads(count: int) -> Generator[None]:
    """So many threads in torch's pool for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
