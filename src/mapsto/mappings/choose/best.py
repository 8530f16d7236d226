"""Go on with the best branch of a fork, by one number of a report.

``argmax_b metric(by(b))`` over the branches b, the first of equals: selection on held-out data (Stone, "Cross-Validatory Choice and
Assessment of Statistical Predictions", 1974). Choose on validation data; a figure chosen on the test set is no result.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

from mapsto.errors import DomainError, SpecError, nearest
from mapsto.kinds import Forked, Network, Report
from mapsto.mapping import Branches, Context, Mapping, MappingField, accepts, kind_name

__all__ = ["Best"]


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

    contract: ClassVar[dict[str, Any]] = {"metric": "parameters"}

    def __post_init__(self) -> None:
        given = [name for name in ("within", "cost", "at_most") if getattr(self, name) is not None]
        if len(given) in (1, 2):
            raise SpecError(
                f"{' and '.join(given)} alone limit nothing", where="choose.best", hint="give within, cost and at_most"
            )

    def misfit(self, given: Any) -> str | None:
        if not isinstance(given, Branches):
            return super().misfit(given)
        for label, kind in given.kinds.items():
            if not accepts(Network, kind):
                return f"takes Networks: branch '{label}' gives {kind_name(kind)}"
        return None

    def apply(self, value: Forked, ctx: Context) -> Network:
        """Raises `SpecError` for an unknown metric or a branch that gives no network, `DomainError` where all are NaN."""
        best: tuple[float, Network] | None = None
        costs: list[float] = []
        for label, network in value.parts.items():
            if not isinstance(network, Network):
                raise SpecError(
                    f"branch '{label}' gives a {type(network).__name__}, not a Network", where="choose.best"
                )
            if self.within is not None and self.cost is not None and self.at_most is not None:
                costs.append(self._read(self.within, self.cost, label, network, ctx))
                if not costs[-1] <= self.at_most:
                    continue
            found = self._read(self.by, self.metric, label, network, ctx)
            merit = found if self.maximize else -found
            if not math.isnan(merit) and (best is None or merit > best[0]):
                best = merit, network
        if best is None and costs and min(costs) > cast("float", self.at_most):
            raise DomainError(
                f"no branch has {self.cost} at most {self.at_most:g}; the smallest reached is {min(costs):.4g}",
                where="choose.best",
                hint="allow more, or add a smaller branch",
            )
        if best is None:
            raise DomainError(f"every branch's {self.metric} is NaN, or there is no branch", where="choose.best")
        return best[1]

    def _read(self, by: Mapping[Any, Any], metric: str, label: str, network: Network, ctx: Context) -> float:
        report = ctx.apply(by, network)
        if not isinstance(report, Report):
            raise SpecError(f"{by.name} gives no report", where="choose.best", hint="choose by an evaluate.* mapping")
        if metric not in report.metrics:
            raise SpecError(
                f"{by.name} reports no '{metric}'", where="choose.best", hint=nearest(metric, report.metrics)
            )
        ctx.log(f"{label}: {metric} {report.metrics[metric]}")
        return report.metrics[metric].value
