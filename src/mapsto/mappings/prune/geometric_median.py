"""Drop the filters that are nearest to all others of their layer: what they compute, the others can stand in for.

``I_c = Σ_c' d(F_c, F_c') / mean`` with F_c all weights that make channel c and d the Euclidean or the cosine distance: the filters of
lowest sum lie at the layer's geometric median (He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural
Networks Acceleration", 2019, there with the same share of every layer: `ranking: per_layer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["GeometricMedian"]


class GeometricMedian(Budgeted, Criterion):
    """The network with the most replaceable filters dropped until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network that is quantized, has nothing to
    prune, or cannot be made as small.

    >>> from mapsto import networks
    >>> big = networks.vgg(plan=((4,), (4,)), channels=1, size=16, classes=10)(seed=0)
    >>> filters = big.tensors["features.0.weight"]
    >>> for place, value in enumerate((1.0, 2.0, 2.1, 4.0)):
    ...     _ = filters[place].fill_(value)
    >>> GeometricMedian(macs=0.4, ranking="per_layer")(big).tensors["features.0.weight"][:, 0, 0, 0].tolist()
    [1.0, 4.0]
    """

    distance: Literal["euclidean", "cosine"] = "euclidean"
    """d: He et al. use `euclidean`; `cosine` leaves the filters' lengths out."""
    normalise: bool = True
    """Sums in units of their layer's mean, for a global ranking. Without, layers of few filters go first."""

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.importance import normalised

        return lambda module, groups: normalised(
            {group.name: _sums(_filters(module, group), self.distance) for group in groups}, wanted=self.normalise
        )


def _sums(filters: Tensor, distance: Literal["euclidean", "cosine"]) -> NDArray[np.float64]:
    """Each row's sum of distances to all rows, shape (channels,)."""
    import torch

    if distance == "euclidean":
        return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1).numpy()
    unit = torch.nn.functional.normalize(filters)
    return (1 - unit @ unit.T).clamp_min(0).sum(1).numpy()


def _filters(module: nn.Module, group: Group) -> Tensor:
    """All weights that make each channel, side by side, shape (channels, numbers); where a channel has fewer, zeros."""
    import numpy as np
    import torch

    from mapsto.nn.prune.importance import weights_of

    parts: list[Tensor] = []
    for weight, member in weights_of(group, module):
        if weight.ndim < 2 or member.role == "in":
            continue
        rows = weight.detach().double().cpu().movedim(member.dim, 0).flatten(1)
        mine = np.flatnonzero(member.owner >= 0)
        order = mine[np.argsort(member.owner[mine], kind="stable")]
        owner = member.owner[order]
        counts = np.bincount(owner, minlength=group.channels)
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        side_by_side = torch.zeros(group.channels, int(counts.max(initial=1)), rows.shape[1], dtype=torch.float64)
        side_by_side[torch.from_numpy(owner), torch.from_numpy(place)] = rows[torch.from_numpy(order)]
        parts.append(side_by_side.flatten(1))
    return torch.cat(parts, 1)
