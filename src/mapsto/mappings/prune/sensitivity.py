"""Spread a budget over layers such that every layer is expected to cost the same accuracy: the sensitive ones stay wide.

The k-th least important of layer l's n channels has importance ``drop_l(k / n)``: the drop that a report found when that share of l
alone went, interpolated, rising to the worst of all where the whole layer goes. The least important of all layers go until the budget
is met (Li et al., "Pruning Filters for Efficient ConvNets", 2017, who chose the layers' shares by hand from such curves).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping as AbcMapping
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network, Report
from mapsto.mapping import MappingField, kind_name
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion, criterion_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["Sensitivity"]


class Sensitivity(Criterion):
    """The network pruned by `criterion` to its budget, with shares of the layers as `by` finds them bearable.

    Raises `SpecError` for a `criterion` that ranks no channels or a `by` that gives no report, and `DomainError` for a report
    without the drops of every layer, a network that is quantized, or one that cannot be made as small.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> big = train.supervised(data=digits, epochs=3)(net)
    >>> by = evaluate.sensitivity(data=digits, samples=500)
    >>> criterion = prune.magnitude(macs=0.4, ranking="global")
    >>> accuracy = lambda net: evaluate.accuracy(data=digits)(net).metrics["accuracy"].value
    >>> accuracy(Sensitivity(criterion=criterion, by=by)(big)) > accuracy(criterion(big)) + 10
    True
    """

    criterion: MappingField
    """The ``prune.*`` criterion that says which channels of a layer go first, and to what budget; its `ranking` is passed
    over."""
    by: MappingField
    """What finds the drops: ``evaluate.sensitivity``, best with the same criterion, on data that nothing was trained on."""

    contract: ClassVar[dict[str, Any]] = {
        "criterion": {"prune.magnitude": {"macs": 0.5}},
        "by": {"evaluate.sensitivity": {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4}}}},
    }

    def __post_init__(self) -> None:
        criterion_of(self.criterion, where="prune.sensitivity")
        if self.by.gives_for(Network) is not Report:
            raise SpecError(
                f"by is {self.by.name}, which gives {kind_name(self.by.gives_for(Network))}, not a Report",
                where="prune.sensitivity",
                hint="give by: {evaluate.sensitivity: {data: …}}",
            )

    @property
    def settings(self) -> Budgeted:
        given = criterion_of(self.criterion, where="prune.sensitivity").settings
        return dataclasses.replace(cast("Any", given), ranking="global")

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.layer_sensitivity import drops_of, levels

        inner = criterion_of(self.criterion, where="prune.sensitivity").importance(value, ctx)
        drops = drops_of(ctx.apply(self.by, value), where="prune.sensitivity")

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            scores = inner(module, groups)
            missing = [name for name in scores if name not in drops]
            if missing:
                raise DomainError(
                    f"the report has no drops of {', '.join(missing[:3])}",
                    where="prune.sensitivity: by",
                    hint="give `by` the same criterion, so that it tries the same layers",
                )
            worst = max(drop for name in scores for drop in drops[name].values())
            return {name: levels(values, drops[name], worst=worst) for name, values in scores.items()}

        return importance
