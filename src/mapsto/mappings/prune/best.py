"""Prune by the criterion and the ranking whose network answers most like the original: no one of them is best for all networks.

``argmin_{criterion, ranking} distance(original, pruned)`` over `prune.magnitude` with both norms and `prune.taylor`, by all rankings; the
distance is the mean KL divergence of the classes' probabilities on calibration batches, before any training (as filters are chosen by
what the network still answers in Luo, Wu and Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", 2017).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping as AbcMapping
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.budget import RANKING, Budgeted, Ranking
from mapsto.nn.prune.criterion import Criterion
from mapsto.nn.prune.data_driven import DataDriven

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["Best"]


class Best(DataDriven, Criterion):
    """The network pruned to the budget by the criterion that leaves its answers nearest to the original's.

    Raises `SpecError` unless exactly one budget and one of `data` and `tasks` are given, `DataError` for data without
    classes or with NaN, and `DomainError` for a network that the data does not fit, that is quantized, or that cannot be made
    as small.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> big = train.supervised(data=digits, epochs=3)(net)
    >>> accuracy = lambda net: evaluate.accuracy(data=digits)(net).metrics["accuracy"].value
    >>> others = (prune.magnitude(macs=0.5, ranking="global"), prune.taylor(macs=0.5, data=digits, ranking="global"))
    >>> accuracy(Best(macs=0.5, data=digits)(big)) >= max(accuracy(other(big)) for other in others)
    True
    """

    ranking: Ranking = Field(default="measured", description=RANKING)

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.measured_ranking import distance_from
        from mapsto.nn.prune.structured import Ranked, choice

        tried = {name: criterion.importance(value, ctx) for name, criterion in self._criteria().items()}
        judge = distance_from(value, self.compared_on(value, ctx), ctx)

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            found: dict[str, AbcMapping[str, NDArray[np.float64]]] = {}
            distances: dict[str, float] = {}
            for name, criterion in tried.items():
                found[name] = criterion(value.module(), groups)
                ranked = Ranked(network=value, groups=tuple(groups), scores=found[name])
                chosen = choice(ranked, self, judge=judge, where=self.name)
                distances[name] = min(chosen.compared.values(), default=0) or judge(ranked.shrunk(chosen.kept))
            nearest = min(distances, key=lambda name: distances[name])
            told = ", ".join(f"{name} {distance:.3g}" for name, distance in distances.items())
            ctx.log(f"by {nearest}, whose answers are nearest to the original's ({told})")
            return found[nearest]

        return importance

    def _criteria(self) -> dict[str, Criterion]:
        """Name → criterion with this one's budget."""
        from mapsto.mappings.prune.magnitude import Magnitude
        from mapsto.mappings.prune.taylor import Taylor

        shared: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(Budgeted) if field.name != "ranking"
        }
        looks: dict[str, Any] = {
            "data": self.data,
            "tasks": self.tasks,
            "batches": self.batches,
            "batch_size": self.batch_size,
        }
        return {
            "prune.magnitude with norm 1": Magnitude(**shared, norm=1),
            "prune.magnitude with norm 2": Magnitude(**shared, norm=2),
            "prune.taylor": Taylor(**shared, **looks),
        }
