"""Drop the channels that batch norm scales least: a scale near zero lets nothing of the channel through.

``I_c = Σ_b |γ_b[c]|`` over the batch norms b that channel c runs through, compared over all layers as they are (Liu et al., "Learning
Efficient Convolutional Networks through Network Slimming", 2017). Made for networks that were trained with an L1 penalty of these
scales; layers without batch norm are left whole.
"""

from __future__ import annotations

from collections.abc import Mapping as AbcMapping
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["BnScale"]


class BnScale(Budgeted, Criterion):
    """The network with the channels of smallest batch-norm scale dropped until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network without batch norms, that is
    quantized, or that cannot be made as small.

    >>> from mapsto import networks
    >>> big = networks.vgg(plan=((4,), (4,)), channels=1, size=16, classes=10)(seed=0)
    >>> _ = big.tensors["features.1.weight"].copy_(big.tensors["features.1.weight"].new_tensor([1, 0.1, -2, 0.2]))
    >>> small = BnScale(macs=0.7, max_prune=0.5)(big)
    >>> small.tensors["features.1.weight"].tolist()
    [1.0, -2.0]
    """

    normalise: bool = False
    """Scales in units of their layer's mean. Network Slimming compares them as they are."""

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.importance import normalised

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            scores = _scales(module, groups)
            without = [group.name for group in groups if group.name not in scores]
            if not scores:
                raise DomainError(
                    f"no layer of it that could be pruned has a batch norm ({', '.join(without[:3])})",
                    where=self.name,
                    hint="prune by another criterion, such as prune.magnitude",
                )
            if without:
                ctx.log(f"left whole: {', '.join(without)} (no batch norm scales its channels)")
            return normalised(scores, wanted=self.normalise)

        return importance


def _scales(module: nn.Module, groups: Sequence[Group]) -> dict[str, NDArray[np.float64]]:
    """Group → sum of the absolute scales of each channel, shape (channels,); groups without a batch norm are not in it."""
    from mapsto.nn.prune.importance import channel_sums, scales_of

    found: dict[str, NDArray[np.float64]] = {}
    for group in groups:
        scales = [channel_sums(scale.abs(), member, group.channels) for scale, member in scales_of(group, module)]
        if scales:
            found[group.name] = sum(scales[1:], scales[0])
    return found
