"""What a network costs: multiply-accumulates, parameters or bytes."""

from __future__ import annotations

from typing import Literal

from mapsto.kinds import Network
from mapsto.nn.network.examples import example_batch
from mapsto.nn.profile.counts import count_macs, count_parameters, state_bytes

__all__ = ["cost_of"]


def cost_of(network: Network, kind: Literal["macs", "parameters", "bytes"]) -> float:
    """Multiply-accumulates of one sample, parameters, or bytes of all tensors."""
    module = network.module()
    if kind == "macs":
        return count_macs(module, example_batch(network))
    return count_parameters(module) if kind == "parameters" else state_bytes(module)
