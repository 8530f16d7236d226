"""Go on with the best branch of a fork, by one number of a report.

``argmax_b metric(by(b))`` over the branches b, the first of equals: selection on held-out data (Stone, "Cross-Validatory Choice and
Assessment of Statistical Predictions", 1974). Choose on validation data; a figure chosen on the test set is no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from collections.abc import Mapping as AbcMapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, MapstoError, SpecError, nearest
from mapsto.kinds import Forked, Metric, Network, Report
from mapsto.mapping import Branches, Mapping, MappingField, accepts, kind_name, left_out_text, refusal

__all__ = ["Best"]

T = TypeVar("T")
_WIDE = 10.0
"""Points between the ends of an interval from which on it is a reason to warn."""


class Best(Mapping[Forked, Network]):
    """The network of the branch with the best report, of inner forks too.

    A branch that cannot be made, exported or judged (`DomainError`, as of a budget out of reach) is left out with a warning; it is an
    error only where none is left.
    """

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
    leaves_out: ClassVar[bool] = True

    contract: ClassVar[dict[str, Any]] = {"metric": "parameters"}

    def __post_init__(self) -> None:
        named = [name for name in ("within", "cost", "at_most") if getattr(self, name) is not None]
        if self.limits and named != ["within"]:
            raise SpecError(
                "limits need what they are read from" if "within" not in named else "a limit is given twice",
                where="choose.best",
                hint="give within and limits, without cost and at_most",
            )
        if len(named) in (1, 2) and not self.limits:
            raise SpecError(
                f"{' and '.join(named)} alone limit nothing", where="choose.best", hint="give within, cost and at_most"
            )

    def misfit(self, given: Any) -> str | None:
        if not isinstance(given, Branches):
            return super().misfit(given)
        kinds = given.flat()
        for label in self.among:
            if label not in kinds:
                return f"takes the branch '{label}', which is none of its branches ({nearest(label, kinds)})"
        for label, kind in kinds.items():
            if (not self.among or label in self.among) and not accepts(Network, kind):
                return f"takes Networks: branch '{label}' gives {kind_name(kind)}"
        return None

    def apply(self, value: Forked, ctx: Context) -> Network:
        """Raises `SpecError` for an unknown metric or a branch that gives no network, `DomainError` where all are NaN."""
        networks = self._candidates(value)
        costs = self._of_each(networks, self._costs, ctx)
        cheap = [label for label, found in costs.items() if all(found[n] <= most for n, most in self._limits.items())]
        found = self._of_each({label: networks[label] for label in cheap}, self._merit, ctx)
        merits = {label: metric.value if self.maximize else -metric.value for label, metric in found.items()}
        known = [label for label, merit in merits.items() if not math.isnan(merit)]
        if not known and self._limits and costs:
            self._require_within(networks, costs)
        if not known:
            raise DomainError(f"every branch's {self.metric} is NaN, or there is no branch", where="choose.best")
        best = max(known, key=lambda label: (merits[label], *(-cost for cost in costs[label].values())))
        self._tell_apart(best, {label: found[label] for label in known}, ctx)
        return networks[best]

    def _candidates(self, value: Forked) -> dict[str, Network]:
        parts, missing = value.flat(), value.missing
        for label in self.among:
            if label not in parts and label not in missing:
                raise SpecError(f"there is no branch '{label}'", where="choose.best", hint=nearest(label, parts))
        wanted = [label for label in self.among or parts if label in parts]
        if not wanted and self.among:
            raise DomainError(
                "every branch that there was to choose from is left out: "
                + "; ".join(dict.fromkeys(missing[label] for label in self.among)),
                where="choose.best",
                hint="mend one of them, or choose among others",
            )
        found: dict[str, Network] = {}
        for label in wanted:
            network = parts[label]
            if not isinstance(network, Network):
                raise SpecError(
                    f"branch '{label}' gives a {type(network).__name__}, not a Network", where="choose.best"
                )
            found[label] = network
        return found

    def _of_each(
        self, networks: AbcMapping[str, Network], ask: Callable[[str, Network, Context], T], ctx: Context
    ) -> dict[str, T]:
        """What is asked of each branch, without those that refuse to be; raises where all do."""
        found: dict[str, T] = {}
        for at, (label, network) in enumerate(networks.items()):
            try:
                found[label] = ask(label, network, ctx)
            except MapstoError as error:
                refused = refusal(error)
                if refused is None or (not found and at == len(networks) - 1):
                    raise
                ctx.warn(left_out_text(label, refused))
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

    def _require_within(self, networks: AbcMapping[str, Network], costs: dict[str, dict[str, float]]) -> None:
        """Raises `DomainError` where no branch keeps every limit: the smallest of each, and what it rests on."""
        if any(all(found[name] <= most for name, most in self._limits.items()) for found in costs.values()):
            return
        told: list[str] = []
        for name, most in self._limits.items():
            label = min(costs, key=lambda each: costs[each][name])
            text = f"{name} at most {most:g}; the smallest reached is {costs[label][name]:.6g} (branch '{label}')"
            reason = self._why(networks, label, costs, name)
            told.append(f"{text}{f', where {reason}' if reason else ''}")
        raise DomainError(
            f"no branch has {' and '.join(told)}",
            where="choose.best",
            hint="allow more, add a smaller branch, or start from a smaller network",
        )

    def _why(
        self, networks: AbcMapping[str, Network], label: str, costs: dict[str, dict[str, float]], name: str
    ) -> str:
        """What keeps the smallest branch from being smaller, against the largest branch."""
        from mapsto.nn.prune.unpruned_layers import stays_whole

        largest = max(costs, key=lambda each: costs[each][name])
        if largest == label:
            return ""
        return stays_whole(networks[largest], networks[label], "macs" if name == "macs" else "parameters")

    def _merit(self, label: str, network: Network, ctx: Context) -> Metric:
        report = self._report(self.by, (self.metric,), network, ctx)
        ctx.log(f"{label}: {self.metric} {report.metrics[self.metric]}")
        return report.metrics[self.metric]

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
