"""How often what was served was right, by the labels that came for it: of late, before, and whether it dropped by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ROWS", "OnlineAccuracy", "online_accuracy"]

_RECENT, _LEAST = 100, 30
"""Labels that are late, and how many it takes."""
ROWS = 1000
"""Labels that are looked at."""
_FADING = 0.99
"""What a label weighs beside the next: the last 100 labels have 63 % of the weight."""


class OnlineAccuracy(NamedTuple):
    """Shares of right answers, 0 to 1."""

    labels: int
    recent: float
    """Of the last 100 labels."""
    faded: float
    """Of the last 1,000, each weighing 1 % less than the next."""
    before: float | None
    """Of the 900 before the last 100; None where there are too few."""
    drop_p_value: float | None
    """Of so few right answers among the last 100 if they were as likely right as those before (Fisher's exact test, one-sided)."""


def online_accuracy(right: Sequence[bool]) -> OnlineAccuracy | None:
    """Of answers and whether they were right, the latest last; None where there are fewer than 30.

    >>> found = online_accuracy([True] * 200 + [True, False] * 50)
    >>> found.recent, found.before, found.drop_p_value < 1e-9
    (0.5, 1.0, True)
    """
    if len(right) < _LEAST:
        return None
    marks = np.array(right[-ROWS:], np.float64)
    weights = _FADING ** np.arange(len(marks))[::-1]
    late, before = marks[-_RECENT:], marks[:-_RECENT]
    faded = float((marks * weights).sum() / weights.sum())
    if len(before) < _LEAST:
        return OnlineAccuracy(len(marks), float(late.mean()), faded, None, None)
    from scipy.stats import fisher_exact

    table = [[int(each.sum()), len(each) - int(each.sum())] for each in (late, before)]
    test: Any = fisher_exact(table, alternative="less")
    return OnlineAccuracy(len(marks), float(late.mean()), faded, float(before.mean()), float(test.pvalue))
