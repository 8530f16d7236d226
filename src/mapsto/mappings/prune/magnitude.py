"""Drop the channels whose weights are smallest: over all tensors that a channel runs through, in units of its layer's mean.

``I_c = Σ_m ‖w_m[c]‖_p^p / mean_c'(Σ_m ‖w_m[c']‖_p^p)`` with m over the weights that make, scale and read channel c (Fang
et al., "DepGraph: Towards Any Structural Pruning", 2023). It needs no data, though with some the ranking is chosen
better; train or distil afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import DataSource
from mapsto.nn.prune.budget import RANKING, Budgeted, Ranking
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.prune.structured import Importance

__all__ = ["Magnitude"]

_COMPARED_ON = 512
"""Samples."""


class Magnitude(Budgeted, Criterion):
    """The network with the channels of smallest norm dropped until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network that is quantized, has nothing to
    prune, or cannot be made as small.

    >>> from mapsto import evaluate, networks
    >>> big = networks.vgg(plan=((8, 8), (16,)), channels=1, size=16, classes=10)(seed=0)
    >>> small = Magnitude(parameters=0.5)(big)
    >>> round(evaluate.size(baseline=big)(small).metrics["parameters_ratio"].value, 1)
    2.2
    """

    version: ClassVar[int] = 2

    ranking: Ranking = Field(default="measured", description=RANKING)
    norm: int = Field(default=2, ge=1, le=2)
    """p: 2 sums squares as DepGraph does, 1 absolute values."""
    normalise: bool = True
    """Importance in units of its layer's mean, as DepGraph does. Without, norms are compared as they are, and those of
    layers with few or small weights go first."""

    data: DataSource | None = None
    """Samples that the rankings are compared on, where `ranking` is ``measured``; labels are not used. By default made-up inputs, which
    are a rougher guide."""

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def compared_on(self, value: Network, ctx: Context) -> Iterable[Tensor]:
        from mapsto.nn.train.calibration_batches import inputs_of

        if self.data is None:
            return super().compared_on(value, ctx)
        return inputs_of(value, self.data, _COMPARED_ON, ctx, where=self.name)

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.importance import normalised, weight_norms

        return lambda module, groups: normalised(weight_norms(module, groups, self.norm), wanted=self.normalise)
