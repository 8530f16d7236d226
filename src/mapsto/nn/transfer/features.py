"""Embeddings of a network that was trained a moment ago and is asked once: by PyTorch, since an export would take longer, and not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapsto.nn.network.head import headless
from mapsto.nn.network.inference import forward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.kinds import Network

__all__ = ["fresh_features"]


def fresh_features(network: Network, inputs: NDArray[Any], ctx: Context) -> NDArray[np.float32]:
    """The embeddings (N, D) of raw samples (N, ...), as a new head of the network would be given them."""
    module = network.module()
    headless(network, module)
    return forward(module, inputs, network.signature.preprocessing, device=ctx.device).numpy()
