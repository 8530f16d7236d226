"""Which trials are worth having: the best, the frontier that no other trial dominates, and where no limit is met the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mapsto.search.goals import dominates
from mapsto.search.trials import Trial, finished

if TYPE_CHECKING:
    from mapsto.search.goals import Goals
    from mapsto.search.holes import Hole

__all__ = ["at_edges", "best", "frontier", "nearest_to_limits"]

_EDGE = 0.05
"""Of a range, what counts as its edge."""


def frontier(trials: Sequence[Trial], goals: Goals) -> list[Trial]:
    """The trials within the limits that no other one is as good as in every objective and better in one, by the first objective."""
    able = [trial for trial in finished(trials) if trial.feasible]
    cost = {trial.number: _costs(trial, goals) for trial in able}
    kept = [one for one in able if not any(dominates(cost[other.number], cost[one.number]) for other in able)]
    seen: set[tuple[float, ...]] = set()
    points: list[Trial] = []
    for trial in sorted(kept, key=lambda trial: (cost[trial.number], trial.number)):
        if cost[trial.number] not in seen:  # several recipes that come to the same: the first of them
            seen.add(cost[trial.number])
            points.append(trial)
    return points


def best(trials: Sequence[Trial], goals: Goals) -> Trial | None:
    """The trial within the limits that is best in the first objective; of equal ones in the next."""
    points = frontier(trials, goals)
    return points[0] if points else None


def nearest_to_limits(trials: Sequence[Trial]) -> Trial | None:
    """The trial that misses the limits by least."""
    done = finished(trials)
    return min(done, key=lambda trial: (trial.miss, trial.number)) if done else None


def at_edges(trial: Trial, holes: Sequence[Hole]) -> list[tuple[Hole, str]]:
    """The ranges at whose end a trial is, and which end: what it would take to come nearer may lie beyond."""
    found: list[tuple[Hole, str]] = []
    for hole in holes:
        if hole.kind != "range" or hole.name not in trial.holes:
            continue
        share = hole.share_of(float(trial.holes[hole.name]))
        if share <= _EDGE or share >= 1 - _EDGE:
            found.append((hole, "low" if share <= _EDGE else "high"))
    return found


def _costs(trial: Trial, goals: Goals) -> tuple[float, ...]:
    return tuple(each.sign * value for each, value in zip(goals.objectives, trial.values, strict=True))
