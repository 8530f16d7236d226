"""What a search is after: objectives, limits, and the metrics that they name.

A metric is named as a recipe's targets name it, ``stage.report.metric``, or by its end alone, as ``accuracy``: then it is that of the last
step that reports one. A limit's miss is by how much it is not met, as a share of its bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mapsto.errors import SpecError, nearest
from mapsto.kinds import Dataset, Frozen, Tasks
from mapsto.mapping import Chain, Fork, Labelled, Observe, fields_of
from mapsto.mapping import Mapping as MapstoMapping
from mapsto.recipe.goals import goal_of

if TYPE_CHECKING:
    from mapsto.recipe.document import Recipe

__all__ = [
    "Goals",
    "Limit",
    "Metrics",
    "Objective",
    "parse_halving",
    "parse_limit",
    "parse_objective",
    "reports_in",
    "resolved",
    "said_of_test_data",
    "unknown_reports",
]

Metrics: TypeAlias = Mapping[str, Mapping[str, Any]]
"""``stage.report.metric`` → ``{value, unit, low, high}``."""
_GOALS: dict[str, Literal["maximize", "minimize"]] = {
    "max": "maximize",
    "min": "minimize",
    "maximize": "maximize",
    "minimize": "minimize",
}
_UNITS = {
    **{"": 1.0, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3, "%": 1.0, "b": 1.0},
    **{"k": 1e3, "m": 1e6, "g": 1e9, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2},
}
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "time": (("p50", "p99", "latency"), ("us", "µs", "ms", "s")),
    "size": (("bytes", "memory"), ("b", "kb", "mb", "gb", "kib", "mib")),
    "a share": (("accuracy", "f1"), ("%",)),
}
"""What is measured → how names of such metrics end, and its units."""
_SHORT = {"latency": "p50"}
"""Other names of metrics: what `evaluate.exported` calls the latency that a user limits."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A metric that is to be as high, or as low, as it can be."""

    metric: str
    goal: Literal["maximize", "minimize"]

    @property
    def sign(self) -> float:
        """What its value is multiplied with to be minimised."""
        return -1.0 if self.goal == "maximize" else 1.0


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A bound that a metric has to keep."""

    metric: str
    goal: str
    """As ``<= 0.5``."""

    def miss(self, value: float) -> float:
        """By how much a value misses it, as a share of the bound; 0 where it is met.

        >>> Limit(metric="p50", goal="<= 0.5").miss(0.6), Limit(metric="accuracy", goal=">= 90").miss(95)
        (0.2, 0.0)
        """
        meets, bound = goal_of(self.goal)
        return 0.0 if meets(value, bound) else max(round(abs(value - bound) / max(abs(bound), 1e-12), 9), 1e-9)


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Objectives and limits of a search."""

    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...] = ()

    def values(self, metrics: Metrics, aliases: Mapping[str, str] | None = None) -> tuple[float, ...]:
        """Of a run's metrics the objectives'. Raises `SpecError` where there is no such metric."""
        return tuple(float(metrics[resolved(each.metric, metrics, aliases)]["value"]) for each in self.objectives)

    def misses(self, metrics: Metrics, aliases: Mapping[str, str] | None = None) -> dict[str, float]:
        """Limit → by how much a run misses it, of all limits."""
        return {
            f"{each.metric} {each.goal}": each.miss(float(metrics[resolved(each.metric, metrics, aliases)]["value"]))
            for each in self.limits
        }


def parse_objective(text: str) -> Objective:
    """``accuracy:max`` or ``chosen.cost.p50:min``. Raises `SpecError`.

    >>> parse_objective("accuracy:max")
    Objective(metric='accuracy', goal='maximize')
    """
    metric, sign, goal = text.rpartition(":")
    if not sign or not metric.strip() or goal.strip() not in _GOALS:
        raise SpecError(
            f"'{text}' is no objective", where="--objective", hint="as in accuracy:max or small.cost.p50:min"
        )
    return Objective(metric=metric.strip(), goal=_GOALS[goal.strip()])


def parse_limit(text: str) -> Limit:
    """``latency<=0.5ms``, ``bytes<=200kB``, ``small.check.accuracy>=90``. Raises `SpecError`.

    >>> parse_limit("latency<=500us"), parse_limit("bytes <= 200kB")
    (Limit(metric='p50', goal='<= 0.5'), Limit(metric='bytes', goal='<= 200000'))
    """
    match = re.fullmatch(
        r"\s*([\w.#]+)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*([a-zµ%]*)\s*", text, re.I
    )
    if match is None or match[4].lower() not in _UNITS:
        raise SpecError(f"'{text}' is no limit", where="--limit", hint="as in 'latency<=0.5ms' or 'bytes<=200kB'")
    bound, unit, last = float(match[3]) * _UNITS[match[4].lower()], match[4].lower(), match[1].rpartition(".")[2]
    if not math.isfinite(bound):
        raise SpecError(f"the limit '{text}' is no finite number", where="--limit", hint="give a smaller bound")
    wanted = next((kind for kind, (names, _) in _KINDS.items() if last.endswith(names)), None)
    given = next((kind for kind, (_, units) in _KINDS.items() if unit in units), None)
    if wanted is not None and given is not None and wanted != given:
        raise SpecError(
            f"'{match[1]}' is {wanted}, and {match[4]} is a unit of {given}",
            where="--limit",
            hint=f"give a unit of {wanted}: {', '.join(_KINDS[wanted][1])}",
        )
    return Limit(metric=_SHORT.get(match[1], match[1]), goal=f"{match[2]} {bound:.15g}")


def parse_halving(text: str) -> dict[str, str]:
    """``big:val_loss:min``: which step's training is stopped at rungs, by which metric of its log. Raises `SpecError`.

    >>> parse_halving("big:val_loss:min")
    {'step': 'big', 'metric': 'val_loss', 'goal': 'minimize'}
    """
    step, _, rest = text.partition(":")
    metric, sign, goal = rest.rpartition(":")
    if not step or not sign or not metric or goal not in _GOALS:
        raise SpecError(f"'{text}' is no halving", where="--halving", hint="as in big:val_loss:min")
    return {"step": step, "metric": metric, "goal": _GOALS[goal]}


def resolved(name: str, metrics: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """The full name of a metric of a run. Raises `SpecError` with the nearest names.

    >>> resolved("accuracy", ["big.check.accuracy", "small.check.accuracy"])
    'small.check.accuracy'
    >>> resolved("small.check.accuracy", ["big.check.accuracy"], {"small": "big"})
    'big.check.accuracy'
    """
    known = list(metrics)
    stage, _, rest = name.partition(".")
    for _ in aliases or {}:
        stage = (aliases or {}).get(stage, stage)
    wanted = f"{stage}.{rest}" if rest else name
    for candidate in (name, wanted):
        if candidate in known:
            return candidate
    ending = [path for path in known if path.endswith(f".{_SHORT.get(name, name)}")]
    if ending:
        return ending[-1]
    for label, there in (aliases or {}).items():
        known += [f"{label}{path.removeprefix(there)}" for path in known if path.startswith(f"{there}.")]
    ends = [path for path in known if path.rpartition(".")[2] == name.rpartition(".")[2]]
    raise SpecError(f"no step reports '{name}'", where="objectives", hint=nearest(name, ends or known, most=8))


def reports_in(recipe: Recipe) -> dict[str, MapstoMapping[Any, Any]]:
    """``stage.report`` → what makes it, as a run of the recipe would name them."""
    found: dict[str, MapstoMapping[Any, Any]] = {}
    count: dict[str, int] = {}

    def walk(mapping: Any, label: str | None, stage: str) -> str:
        """The path of the step that a mapping ends in."""
        if isinstance(mapping, Chain):
            for place, step in enumerate(mapping.steps):
                rest = mapping.steps[place + 1 :]
                last = not any(not isinstance(later, Observe) for later in rest)
                stage = walk(step, label if last else None, stage)
            return stage
        if isinstance(mapping, Labelled):
            return walk(mapping.mapping, mapping.label, stage)
        if isinstance(mapping, Observe):
            found.update({f"{stage}.{name}": report for name, report in mapping.reports.items()})
            return stage
        if isinstance(mapping, Fork):
            ends = [walk(branch, name, stage) for name, branch in mapping.branches.items()]
            return ends[0] if ends else stage
        if label is not None:
            return label
        count[mapping.name] = count.get(mapping.name, 0) + 1
        return mapping.name if count[mapping.name] == 1 else f"{mapping.name}#{count[mapping.name]}"

    walk(recipe.steps, None, "")
    return found


def unknown_reports(goals: Goals, recipe: Recipe, aliases: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with names of metrics that can be known before anything runs."""
    known = reports_in(recipe)
    for name in (*(each.metric for each in goals.objectives), *(each.metric for each in goals.limits)):
        path, _, metric = name.rpartition(".")
        stage, _, report = path.rpartition(".")
        for _ in aliases:
            stage = aliases.get(stage, stage)
        if not path or f"{stage}.{report}" in known or "#" in path or (not report and metric):
            continue
        yield f"no step reports '{name}' ({nearest(name, [f'{each}.{metric}' for each in known], most=8)})"


def said_of_test_data(goals: Goals, recipe: Recipe, aliases: Mapping[str, str]) -> Iterator[str]:
    """Warnings for objectives and limits that are measured on test data: what is chosen by them is no longer unseen."""
    known = reports_in(recipe)
    tests = [data for path, report in known.items() if "test" in path.rpartition(".")[2] for data in _data(report)]
    for name in dict.fromkeys((*(each.metric for each in goals.objectives), *(each.metric for each in goals.limits))):
        path = name.rpartition(".")[0]
        stage, _, report = path.rpartition(".")
        for _ in aliases:
            stage = aliases.get(stage, stage)
        for each in [known[path] for path in known if path == f"{stage}.{report}" or (not stage and report == "")]:
            labels = [
                label for label, data in recipe.data.items() for used in _data(each) if data is used or data == used
            ]
            called = next((label for label in labels if "test" in label), "test" if report == "test" else None)
            where = f"data called '{called}'" if called is not None else None
            if where is None and any(used == data for used in _data(each) for data in tests):
                where = "the very data of a report called 'test'"
            if where is None and any(_is_test(used) for used in _data(each)):
                where = "a test split"
            if where is not None:
                yield f"'{name}' is measured on {where}: what is chosen by it needs other data to be judged on"


def _data(mapping: Any) -> list[Any]:
    return [value for value in fields_of(mapping).values() if isinstance(value, (Dataset, Tasks))]


def _is_test(value: Any) -> bool:
    if isinstance(value, Frozen):
        fields = fields_of(value)
        return fields.get("split") in ("test", "evaluation") or any(_is_test(part) for part in fields.values())
    return isinstance(value, (tuple, list)) and any(map(_is_test, value))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether values to be minimised are nowhere worse than others and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
