"""Drop the channels whose squared weights are a small part of what their layer would have left: layer-adaptive magnitude.

``I_c = n_c / Σ_{c' : n_c' ≥ n_c} n_c'`` with ``n_c = Σ_m ‖w_m[c]‖²`` over the weights that make, scale and read channel c, so that
the largest channel of each layer has importance 1 and no layer is emptied before another (Lee et al., "Layer-Adaptive Sparsity for
the Magnitude-Based Pruning", 2021, there for single weights; of equals the earlier one counts as the smaller).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.prune.structured import Importance

__all__ = ["Lamp"]


class Lamp(Budgeted, Criterion):
    """The network with the channels of lowest layer-adaptive magnitude dropped until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network that is quantized, has nothing to
    prune, or cannot be made as small.

    >>> from mapsto import networks, prune
    >>> big = networks.vgg(plan=((8, 8), (16,)), channels=1, size=16, classes=10)(seed=0)
    >>> for name, factor in (("features.0.weight", 0.01), ("features.1.weight", 0.01), ("features.3.weight", 0.1)):
    ...     _ = big.tensors[name].mul_(factor)
    >>> widths = lambda net: [net.tensors[f"features.{i}.weight"].shape[0] for i in (0, 3, 7)]
    >>> widths(prune.magnitude(macs=0.3, normalise=False, ranking="global")(big)), widths(Lamp(macs=0.3)(big))
    ([1, 8, 11], [4, 5, 5])
    """

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.importance import weight_norms

        return lambda module, groups: {
            name: _shares_of_the_rest(norms) for name, norms in weight_norms(module, groups, 2).items()
        }


def _shares_of_the_rest(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value over the sum of itself and those that are larger; 0 where there are only zeros.

    >>> import numpy as np
    >>> _shares_of_the_rest(np.array([3.0, 1.0, 0.0, 2.0])).round(3).tolist()
    [1.0, 0.167, 0.0, 0.4]
    """
    import numpy as np

    order = np.argsort(norms, kind="stable")
    rest = np.cumsum(norms[order][::-1])[::-1]
    shares = np.zeros(len(norms))
    shares[order] = norms[order] / np.where(rest > 0, rest, 1)
    return shares
