"""How much each hole matters: the share of an objective's variance over all trials that the hole's value alone explains.

``ω² = (SS_between − (k − 1) MS_within) / (SS_total + MS_within)`` over k groups of trials, by the option of a choice or the quarter of a
range (Hays, "Statistics", 1963); by chance it is 0, and a hole that another branch leaves out is a group of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mapsto.search.trials import Trial, finished

if TYPE_CHECKING:
    from mapsto.search.holes import Hole

__all__ = ["LEAST", "explained", "importances"]

LEAST = 10
"""Trials with fewer of which nothing is said."""
_QUARTERS = 4


def importances(trials: Sequence[Trial], holes: Sequence[Hole], objective: int = 0) -> dict[str, float]:
    """Hole → the share of the objective's variance that it explains, the largest first; empty for fewer than `LEAST` trials."""
    done = finished(trials)
    if len(done) < LEAST:
        return {}
    values = np.array([trial.values[objective] for trial in done])
    found = {hole.name: explained([_group(trial, hole) for trial in done], values) for hole in holes}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def explained(groups: Sequence[str], values: np.ndarray) -> float:
    """The share of the variance of values that their groups explain, 0 to 1, corrected for chance.

    >>> explained(["a", "a", "b", "b"], np.array([0.0, 0.1, 1.0, 1.1])) > 0.9
    True
    >>> explained(["a", "b", "a", "b"], np.array([0.0, 0.1, 1.0, 1.1]))
    0.0
    """
    names = sorted(set(groups))
    total = float(((values - values.mean()) ** 2).sum())
    if total == 0 or len(names) < 2 or len(names) >= len(values):
        return 0.0
    parts = [values[np.array([group == name for group in groups])] for name in names]
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    mean_within = within / (len(values) - len(names))
    share = (total - within - (len(names) - 1) * mean_within) / (total + mean_within)
    return round(max(share, 0.0), 4)


def _group(trial: Trial, hole: Hole) -> str:
    if hole.name not in trial.holes:
        return "left out"
    value = trial.holes[hole.name]
    if hole.kind != "range" or hole.size <= _QUARTERS:
        return str(value)
    return f"quarter {min(int(_QUARTERS * hole.share_of(float(value))), _QUARTERS - 1)}"
