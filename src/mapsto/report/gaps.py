"""How much better a trained network is on its own examples than on others, for people: the gap that over-fitting leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Gap", "gap_metrics", "gap_of", "gap_table"]


@dataclass(frozen=True)
class Gap:
    """The figures of one step."""

    figure: str
    """``accuracy``, ``rmse`` or ``loss``."""
    training: float
    held_out: float
    start: float | None
    """Of held-out data before training, where that was judged."""
    judge: str
    """What held-out data these are."""

    @property
    def size(self) -> float:
        """How much worse it is on held-out data."""
        difference = self.training - self.held_out
        return difference if self.figure == "accuracy" else -difference

    @property
    def unit(self) -> str:
        """Of the figures."""
        return "%" if self.figure == "accuracy" else ""

    def __str__(self) -> str:
        """One line, without the step.

        >>> print(Gap("accuracy", 100.0, 61.5, None, "cross-validation"))
        accuracy 100.0 % on its training examples, 61.5 % on others by cross-validation: a gap of 38.5 points
        """
        figures = [f"{value:.1f} %" if self.unit else f"{value:.4g}" for value in (self.training, self.held_out)]
        gap = f"{self.size:.1f} points" if self.unit else f"{self.size:.4g}"
        return f"{self.figure} {figures[0]} on its training examples, {figures[1]} on others by {self.judge}: a gap of {gap}"


def gap_of(step: Mapping[str, Any], steps: Sequence[Mapping[str, Any]] = ()) -> Gap | None:
    """The gap of a step of a report; None where no training, or no data but its own, was looked at.

    Where a training has no held-out figures of its own, those of an ``evaluate.accuracy`` of its result are taken, on other data.

    >>> gap_of({"account": {"gap": {"training": {"accuracy": 99.0}, "held_out": {"accuracy": 80.0}}}}).size
    19.0
    """
    told: Mapping[str, Any] = (step.get("account") or {}).get("gap") or {}
    training, held_out = told.get("training") or {}, told.get("held_out") or {}
    judge = str(told.get("held_out_by") or "the validation data")
    if not held_out:
        watching = next((each for each in steps if _judges(each, step)), None)
        if watching is not None:
            held_out = {name: metric["value"] for name, metric in watching["report"]["metrics"].items()}
            judge = str(watching.get("label") or watching["name"])
    figure = next((name for name in ("accuracy", "rmse", "loss") if name in training and name in held_out), None)
    if figure is None:
        return None
    start = (told.get("start") or {}).get(figure)
    return Gap(figure, float(training[figure]), float(held_out[figure]), start, judge)


def _judges(watching: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    """Whether a report is of a step's result, on other data than it was trained on."""
    if (
        watching.get("name") != "evaluate.accuracy"
        or watching.get("of") != step.get("id")
        or not watching.get("report")
    ):
        return False
    ours, theirs = ((each.get("fields") or {}).get("data") for each in (step, watching))
    return ours != theirs


def gap_table(gap: Gap) -> dict[str, Any]:
    """As a table of a report."""
    columns = ["", gap.figure]
    rows: list[list[Any]] = [["its training examples", gap.training], [f"others, by {gap.judge}", gap.held_out]]
    rows.append(["gap", gap.size])
    if gap.start is not None:
        rows.append(["others, before training", gap.start])
    return {"columns": columns, "rows": rows, "units": {gap.figure: gap.unit}}


def gap_metrics(step: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures as metrics of a step, for targets and comparisons."""
    gap = gap_of(step, steps)
    if gap is None:
        return {}
    values = {f"training_{gap.figure}": gap.training, f"held_out_{gap.figure}": gap.held_out, "gap": gap.size}
    return {name: {"value": value, "unit": gap.unit, "measured": False} for name, value in values.items()}
