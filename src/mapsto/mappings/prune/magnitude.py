"""Drop the channels whose weights are smallest: over all tensors that a channel runs through, in units of its layer's mean.

``I_c = Σ_m ‖w_m[c]‖_p^p / mean_c'(Σ_m ‖w_m[c']‖_p^p)`` with m over the weights that make, scale and read channel c (Fang
et al., "DepGraph: Towards Any Structural Pruning", 2023). It needs no data; train or distil afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping as AbcMapping
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.kinds import Network
from mapsto.mapping import Context, Mapping
from mapsto.nn.budget import Budgeted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.groups import Group

__all__ = ["Magnitude"]


class Magnitude(Budgeted, Mapping[Network, Network]):
    """The network with the channels of smallest norm dropped until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network that is quantized, has nothing to
    prune, or cannot be made as small.
    """

    norm: int = Field(default=2, ge=1, le=2)
    """p: 2 sums squares as DepGraph does, 1 absolute values."""

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.prune import pruned

        return pruned(value, self, self._importance, where=self.name, log=ctx.log)

    def _importance(self, module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
        import numpy as np

        from mapsto.nn.prune import channel_sums, mean_normalised

        weights = dict(module.named_parameters())
        found: dict[str, NDArray[np.float64]] = {}
        for group in groups:
            members = [m for m in group.members if m.name in weights and not m.name.endswith("bias")]
            norms = (channel_sums(weights[m.name].abs() ** self.norm, m, group.channels) for m in members)
            sums = sum(norms, np.zeros(group.channels))
            found[group.name] = mean_normalised(sums)
        return found
