"""Answers that are given only where a classifier is sure: how many are wrong of those that it gives, at every share that it gives.

``risk(c)`` is the share of wrong answers among the share c of samples of highest confidence; ``AURC = mean_k risk(k / N)``, and what is
above that of the best order, all wrong answers last, is the excess (Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation
for Deep Neural Classifiers", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mapsto.kinds import Metric, Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Selective", "risks", "selective"]

_POINTS = 101


@dataclass(frozen=True, kw_only=True)
class Selective:
    """What confidence is worth to decide whether to answer."""

    metrics: dict[str, Metric]
    """``aurc`` and ``excess_aurc`` (%), and ``coverage``, the largest share (%) of samples of whose answers at most `risk` are wrong."""
    curve: Series
    """Risk (%) over coverage (%), and that of the best order."""


def risks(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of wrong answers among the first 1, 2, …, N by confidence (N,); answers of one confidence are in no order.

    >>> risks(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False])).round(3).tolist()
    [0.0, 0.25, 0.333, 0.5]
    """
    _, group, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, ~right)
    spread = np.repeat(wrong / counts, counts)
    return np.cumsum(spread) / np.arange(1, len(sure) + 1)


def selective(sure: NDArray[np.float64], right: NDArray[np.bool_], *, risk: float = 0.05) -> Selective:
    """The curve of confidences (N,) in 0 to 1 and of whether each answer is right (N,).

    >>> found = selective(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, True, False]))
    >>> {name: round(metric.value, 2) for name, metric in found.metrics.items()}
    {'aurc': 6.25, 'excess_aurc': 0.0, 'coverage': 75.0}
    """
    n = len(sure)
    found, best = risks(sure, right), risks(right.astype(np.float64), right)
    allowed = np.flatnonzero(found <= risk + 1e-12)
    metrics = {
        "aurc": Metric(value=100 * float(found.mean()), unit="%", n=n),
        "excess_aurc": Metric(value=100 * float(found.mean() - best.mean()), unit="%", n=n),
        "coverage": Metric(value=100 * float(allowed[-1] + 1) / n if len(allowed) else 0.0, unit="%", n=n),
    }
    places = np.unique(np.linspace(0, n - 1, min(_POINTS, n)).round().astype(int))
    ys = {name: tuple((100 * each[places]).tolist()) for name, each in (("risk", found), ("best order", best))}
    coverage = tuple((100 * (places + 1) / n).tolist())
    return Selective(metrics=metrics, curve=Series(x=coverage, ys=ys, x_name="answered, %", y_name="wrong, %"))
