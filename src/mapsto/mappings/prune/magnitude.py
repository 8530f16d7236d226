"""Drop the channels whose weights are smallest: over all tensors that a channel runs through, in units of its layer's mean.

``I_c = Σ_m ‖w_m[c]‖_p^p / mean_c'(Σ_m ‖w_m[c']‖_p^p)`` with m over the weights that make, scale and read channel c (Fang
et al., "DepGraph: Towards Any Structural Pruning", 2023). It needs no data; train or distil afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    from mapsto.nn.prune.structured import Importance

__all__ = ["Magnitude"]


class Magnitude(Budgeted, Criterion):
    """The network with the channels of smallest norm dropped until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network that is quantized, has nothing to
    prune, or cannot be made as small.

    >>> from mapsto import evaluate, networks
    >>> big = networks.vgg(plan=((8, 8), (16,)), channels=1, size=16, classes=10)(seed=0)
    >>> small = Magnitude(parameters=0.5)(big)
    >>> round(evaluate.size(baseline=big)(small).metrics["parameters_ratio"].value, 1)
    2.0
    """

    norm: int = Field(default=2, ge=1, le=2)
    """p: 2 sums squares as DepGraph does, 1 absolute values."""
    normalise: bool = True
    """Importance in units of its layer's mean, as DepGraph does. Without, norms are compared as they are, and those of
    layers with few or small weights go first."""

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.importance import normalised, weight_norms

        return lambda module, groups: normalised(weight_norms(module, groups, self.norm), wanted=self.normalise)
