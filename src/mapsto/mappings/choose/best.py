"""Go on with the best branch of a fork, by one number of a report.

``argmax_b metric(by(b))`` over the branches b, the first of equals: selection on held-out data (Stone, "Cross-Validatory Choice and
Assessment of Statistical Predictions", 1974). Choose on validation data; a figure chosen on the test set is no result.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

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

    contract: ClassVar[dict[str, Any]] = {"metric": "parameters"}

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
        for label, network in value.parts.items():
            if not isinstance(network, Network):
                raise SpecError(
                    f"branch '{label}' gives a {type(network).__name__}, not a Network", where="choose.best"
                )
            report = ctx.apply(self.by, network)
            if not isinstance(report, Report):
                raise SpecError(
                    f"{self.by.name} gives no report", where="choose.best: by", hint="choose by an evaluate.* mapping"
                )
            if self.metric not in report.metrics:
                raise SpecError(
                    f"{self.by.name} reports no '{self.metric}'",
                    where="choose.best",
                    hint=nearest(self.metric, report.metrics),
                )
            found = report.metrics[self.metric].value
            ctx.log(f"{label}: {self.metric} {report.metrics[self.metric]}")
            merit = found if self.maximize else -found
            if not math.isnan(merit) and (best is None or merit > best[0]):
                best = merit, network
        if best is None:
            raise DomainError(f"every branch's {self.metric} is NaN, or there is no branch", where="choose.best")
        return best[1]
