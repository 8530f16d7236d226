"""Which steps earned what: the chosen recipe again with one optional step left out, or one hole at its default, all else the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mapsto.search.frontier import best
from mapsto.search.holes import Filled, same
from mapsto.search.trials import Trial, finished

if TYPE_CHECKING:
    from mapsto.search.goals import Goals
    from mapsto.search.space import Space

__all__ = ["Variant", "ablated", "rows", "variants"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recipe that differs from the chosen one in one hole, and in the holes that exist by it."""

    hole: str
    before: Any
    after: Any
    holes: Filled

    @property
    def what(self) -> str:
        """The change in words."""
        if self.hole.endswith(".kept") and self.after is False:
            return f"without {self.hole.removesuffix('.kept')}"
        return f"{self.hole} {_shown(self.after)} instead of {_shown(self.before)}"


def ablated(trials: Sequence[Trial], goals: Goals) -> Trial | None:
    """The trial that is looked at: the best one of those that the search itself chose."""
    return best([trial for trial in trials if trial.role != "ablation"], goals)


def variants(space: Space, trial: Trial) -> list[Variant]:
    """One for each optional step that is kept and each hole that is not at its default."""
    found: list[Variant] = []
    for hole in space.holes:
        if hole.name not in trial.holes:
            continue
        value = trial.holes[hole.name]
        other = (False if value is True else None) if hole.kind == "optional" else hole.default
        if other is None or same(other, value):
            continue
        wanted = {**trial.holes, hole.name: other}
        holes = space.ask(lambda each, wanted=wanted: wanted.get(each.name, each.default))
        found.append(Variant(hole=hole.name, before=value, after=other, holes=holes))
    return found


def rows(space: Space, trials: Sequence[Trial], goals: Goals) -> list[dict[str, Any]]:
    """What each variant that has run came to, and its differences from the chosen trial, one an objective."""
    chosen = ablated(trials, goals)
    if chosen is None:
        return []
    done = finished(trials)
    table: list[dict[str, Any]] = []
    for variant in variants(space, chosen):
        tried = [
            each
            for each in (*done, *trials)
            if each.state in ("complete", "failed") and same(each.holes, variant.holes)
        ]
        if not tried:
            continue
        trial = tried[0]
        values = list(trial.values)
        table.append(
            {
                "what": variant.what,
                "hole": variant.hole,
                "of": chosen.number,
                "trial": trial.number,
                "values": values,
                "differences": [after - before for after, before in zip(values, chosen.values, strict=False)],
                "feasible": trial.feasible,
            }
        )
    return table


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
