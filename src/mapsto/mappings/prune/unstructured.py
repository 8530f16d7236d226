"""Set the weights of least worth to zero, one by one: layers keep their shape, files compress better, most runtimes gain nothing.

``w ← w · [s(w) > q]`` with q the quantile of the share that goes and ``s = |w|`` (Han et al., "Learning both Weights and
Connections for Efficient Neural Networks", 2015) or ``s_ij = |w_ij| · ‖x_j‖₂`` with the inputs x_j of the weight over samples (Sun
et al., "A Simple and Effective Pruning Approach for Large Language Models", 2024, who compare within the rows of a layer).
`evaluate.sparsity` says what it buys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.nn.prune.unstructured import Masking, masked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Unstructured"]


class Unstructured(Masking, Mapping[Network, Network]):
    """The network with a share of its weights at zero, where they stay in training.

    Raises `SpecError` for `wanda` without data, `DataError` for no samples or values that are not finite, and
    `DomainError` for a network that is quantized, has adapters or no layer to mask, or where a layer would lose all weights.

    >>> from mapsto import networks
    >>> big = networks.mlp(inputs=4, widths=(8,), classes=2)(seed=0)
    >>> small = Unstructured(share=0.75)(big)
    >>> [int((tensor == 0).sum()) for name, tensor in small.tensors.items() if name.endswith("weight")]
    [23, 13]
    """

    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the weights that are zero afterwards, 0 to 1."""
    compare: Literal["network", "layer", "row"] = "network"
    """Among which weights the share goes: of all layers together, of each layer, or of each output of a layer."""

    def apply(self, value: Network, ctx: Context) -> Network:
        import numpy as np
        import torch

        from mapsto.nn.prune.checks import require_prunable

        module = require_prunable(value, where=self.name)
        scores = {path: found.numpy() for path, found in self.scores(value, module, self.layers(module), ctx).items()}
        if self.compare == "network":
            flat = _kept(np.concatenate([found.reshape(-1) for found in scores.values()])[None], self.share)[0]
            parts = np.split(flat, np.cumsum([found.size for found in scores.values()])[:-1])
        else:
            rows = (found.reshape(len(found) if self.compare == "row" else 1, -1) for found in scores.values())
            parts = [_kept(found, self.share) for found in rows]
        kept = {
            path: torch.from_numpy(part.reshape(found.shape))
            for (path, found), part in zip(scores.items(), parts, strict=True)
        }
        ctx.log(f"{sum(int((~mask).sum()) for mask in kept.values()):,} weights of {len(kept)} layers are zero")
        return masked(value, module, kept, where=self.name)


def _kept(scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Which are not among the lowest of their row, shape (rows, columns)."""
    import numpy as np

    count = int(share * scores.shape[1] + 1e-9)
    kept = np.ones(scores.shape, np.bool_)
    if count:
        np.put_along_axis(kept, np.argpartition(scores, count - 1, axis=1)[:, :count], False, axis=1)
    return kept
