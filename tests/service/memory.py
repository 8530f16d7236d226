"""Whether memory grows: samples of a process's resident memory, and a line through those that came after it was warm."""

from __future__ import annotations

import numpy as np
import psutil

__all__ = ["Memory"]

_MIB = 1 << 20


class Memory:
    """Of processes, in MiB, by how much was done."""

    def __init__(self, *numbers: int) -> None:
        self._processes = [psutil.Process(number) for number in numbers] or [psutil.Process()]
        self.samples: list[tuple[int, float]] = []

    def note(self, done: int) -> None:
        """Take a sample."""
        self.samples.append((done, sum(each.memory_info().rss for each in self._processes) / _MIB))

    def growth(self, *, warm: float = 0.5) -> float:
        """MiB from when a share of the work was done to the end, by the line through those samples (Theil-Sen)."""
        last = self.samples[-1][0]
        own = np.array([sample for sample in self.samples if sample[0] >= warm * last])
        first, second = np.triu_indices(len(own), 1)
        slopes = (own[second, 1] - own[first, 1]) / (own[second, 0] - own[first, 0])
        return float(np.median(slopes) * (own[-1, 0] - own[0, 0]))
