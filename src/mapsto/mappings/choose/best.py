"""Go on with the best branch of a fork, by one number of a report.

``argmax_b metric(by(b))`` over the branches b, the first of equals: selection on held-out data (Stone, "Cross-Validatory Choice and
Assessment of Statistical Predictions", 1974). Choose on validation data; a figure chosen on the test set is no result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping as AbcMapping
from typing import Any, ClassVar

from pydantic import Field

from mapsto.errors import DomainError, SpecError, nearest
from mapsto.kinds import Forked, Metric, Network, Report
from mapsto.mapping import Branches, Context, Mapping, MappingField, accepts, kind_name

__all__ = ["Best"]

_WIDE = 10.0
"""Points between the ends of an interval from which on it is a reason to warn."""


class Best(Mapping[Forked, Network]):
    """The network of the branch with the best report."""

    by: MappingField
    """What is applied to every branch: an ``evaluate.*`` mapping."""
    metric: str = "accuracy"
    """The number of its report that decides, in that metric's unit."""
    maximize: bool = True
    """Whether more is better."""
    within: MappingField | None = None
    """What tells a branch's cost, another ``evaluate.*`` mapping; with `cost` and `at_most` it leaves out what costs too much."""
    cost: str | None = None
    """The number of that report which is limited."""
    at_most: float | None = None
    """Its limit, in that metric's unit."""
    limits: dict[str, float] = Field(default_factory=dict)
    """In place of `cost` and `at_most`: number of that report → its limit; all must hold."""

    among: tuple[str, ...] = ()
    """The branches to choose from; by default all. Others are there to be referred to, as by ``evaluate.cross_validated``."""

    version: ClassVar[int] = 3

    contract: ClassVar[dict[str, Any]] = {"metric": "parameters"}

    def __post_init__(self) -> None:
        given = [name for name in ("within", "cost", "at_most") if getattr(self, name) is not None]
        if self.limits and given != ["within"]:
            raise SpecError(
                "limits need what they are read from" if "within" not in given else "a limit is given twice",
                where="choose.best",
                hint="give within and limits, without cost and at_most",
            )
        if len(given) in (1, 2) and not self.limits:
            raise SpecError(
                f"{' and '.join(given)} alone limit nothing", where="choose.best", hint="give within, cost and at_most"
            )

    def misfit(self, given: Any) -> str | None:
        if not isinstance(given, Branches):
            return super().misfit(given)
        for label, kind in given.kinds.items():
            if (not self.among or label in self.among) and not accepts(Network, kind):
                return f"takes Networks: branch '{label}' gives {kind_name(kind)}"
        return None

    def apply(self, value: Forked, ctx: Context) -> Network:
        """Raises `SpecError` for an unknown metric or a branch that gives no network, `DomainError` where all are NaN."""
        networks = self._candidates(value)
        costs = {label: self._costs(label, network, ctx) for label, network in networks.items()}
        cheap = [label for label, found in costs.items() if all(found[n] <= most for n, most in self._limits.items())]
        found = {label: self._read(self.by, self.metric, label, networks[label], ctx) for label in cheap}
        merits = {label: metric.value if self.maximize else -metric.value for label, metric in found.items()}
        known = [label for label, merit in merits.items() if not math.isnan(merit)]
        if not known and self._limits and costs:
            self._require_within(value, costs)
        if not known:
            raise DomainError(f"every branch's {self.metric} is NaN, or there is no branch", where="choose.best")
        best = max(known, key=lambda label: (merits[label], *(-cost for cost in costs[label].values())))
        self._tell_apart(best, {label: found[label] for label in known}, ctx)
        return networks[best]

    def _candidates(self, value: Forked) -> dict[str, Network]:
        for label in self.among:
            if label not in value.parts:
                raise SpecError(f"there is no branch '{label}'", where="choose.best", hint=nearest(label, value.parts))
        found: dict[str, Network] = {}
        for label in self.among or value.parts:
            network = value.parts[label]
            if not isinstance(network, Network):
                raise SpecError(
                    f"branch '{label}' gives a {type(network).__name__}, not a Network", where="choose.best"
                )
            found[label] = network
        return found

    def _tell_apart(self, best: str, found: AbcMapping[str, Metric], ctx: Context) -> None:
        """Warn where the best branch's interval is wide and holds all others."""
        low, high = (getattr(found[best], end) for end in ("low", "high"))
        if low is None or high is None or high - low < _WIDE or len(found) < 2:
            return
        if all(low <= metric.value <= high for metric in found.values()):
            ctx.warn(
                f"the {len(found)} branches cannot be told apart: the best has {self.metric} {found[best]} on {found[best].n} samples, "
                "and all others lie within that interval; give more samples to choose by"
            )

    @property
    def _limits(self) -> dict[str, float]:
        one = {} if self.cost is None or self.at_most is None else {self.cost: self.at_most}
        return one or self.limits

    def _costs(self, label: str, network: Network, ctx: Context) -> dict[str, float]:
        if self.within is None:
            return {}
        report = self._report(self.within, self._limits, network, ctx)
        for name in self._limits:
            ctx.log(f"{label}: {name} {report.metrics[name]}")
        return {name: report.metrics[name].value for name in self._limits}

    def _require_within(self, value: Forked, costs: dict[str, dict[str, float]]) -> None:
        """Raises `DomainError` where no branch keeps every limit: the smallest of each, and what it rests on."""
        if any(all(found[name] <= most for name, most in self._limits.items()) for found in costs.values()):
            return
        told: list[str] = []
        for name, most in self._limits.items():
            label = min(costs, key=lambda each: costs[each][name])
            text = f"{name} at most {most:g}; the smallest reached is {costs[label][name]:.6g} (branch '{label}')"
            reason = self._why(value, label, costs, name)
            told.append(f"{text}{f', where {reason}' if reason else ''}")
        raise DomainError(
            f"no branch has {' and '.join(told)}",
            where="choose.best",
            hint="allow more, add a smaller branch, or start from a smaller network",
        )

    def _why(self, value: Forked, label: str, costs: dict[str, dict[str, float]], name: str) -> str:
        """What keeps the smallest branch from being smaller, against the largest branch."""
        from mapsto.nn.stays_whole import stays_whole

        largest = max(costs, key=lambda each: costs[each][name])
        before, after = value.parts[largest], value.parts[label]
        if largest == label or not isinstance(before, Network) or not isinstance(after, Network):
            return ""
        return stays_whole(before, after, "macs" if name == "macs" else "parameters")

    def _read(self, by: Mapping[Any, Any], metric: str, label: str, network: Network, ctx: Context) -> Metric:
        report = self._report(by, (metric,), network, ctx)
        ctx.log(f"{label}: {metric} {report.metrics[metric]}")
        return report.metrics[metric]

    def _report(self, by: Mapping[Any, Any], metrics: Iterable[str], network: Network, ctx: Context) -> Report:
        report = ctx.report(by, network)
        if not isinstance(report, Report):
            raise SpecError(f"{by.name} gives no report", where="choose.best", hint="choose by an evaluate.* mapping")
        for metric in metrics:
            if metric not in report.metrics:
                raise SpecError(
                    f"{by.name} reports no '{metric}'", where="choose.best", hint=nearest(metric, report.metrics)
                )
        return report
