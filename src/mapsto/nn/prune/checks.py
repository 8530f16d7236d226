"""What pruning asks of a network: float and finite tensors, one input, and of most ways no adapters."""

from __future__ import annotations

from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.edits._adapted_layer import require_none
from mapsto.nn.edits._low_rank_change import TENSORS
from mapsto.nn.edits.quantizers import has_quantized_part

__all__ = ["require_prunable"]


def require_prunable(network: Network, *, where: str, adapters: bool = False) -> nn.Module:
    """Its module, with `adapters` also one that has those of `adapt.lora`.

    Raises `DomainError` where it is quantized, has other adapters, several inputs, or is not finite.
    """
    module = network.module()
    if has_quantized_part(module):
        raise DomainError("the network is quantized", where=where, hint="prune before quantizing")
    require_none(module, where=where, besides=TENSORS if adapters else ())
    if len(network.signature.inputs) != 1:
        raise DomainError(f"the network has {len(network.signature.inputs)} inputs", where=where, hint="give it one")
    broken = [name for name, tensor in network.tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise DomainError(f"its tensors are not finite: {', '.join(broken[:5])}", where=where, hint="train it anew")
    return module
