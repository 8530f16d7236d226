"""ExecuTorch with XNNPACK: ``model.pte``, for one sample; int8 kernels where a layer's input and result are quantized.

What XNNPACK has no kernel for runs in ExecuTorch's portable ones. On a device the C++ runtime needs no torch; in Python it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapsto_runtime.runtimes._converting import optional, quiet, unable
from mapsto_runtime.runtimes.executorch import MODEL, NAME, TITLE, load

if TYPE_CHECKING:
    from mapsto.kinds import Network

__all__ = ["MODEL", "NAME", "TITLE", "load", "lowered"]


def lowered(network: Network) -> dict[str, bytes]:
    """The program. Raises `DomainError` that names the operator which ExecuTorch lacks."""
    import torch

    from mapsto.nn.export.pt2e import decomposed

    with quiet():
        xnnpack = _part("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        exir = _part("executorch.exir")
        graph, inputs = decomposed(network, codes=True, where="export.executorch")
        try:
            program: Any = torch.export.export(graph, inputs)
            edge: Any = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
            return {MODEL: bytes(edge.to_executorch().buffer)}
        except Exception as error:  # its passes raise what they like
            raise unable(TITLE, error.__cause__ or error, "export.executorch") from error


def _part(module: str) -> Any:
    return optional(module, "edge", where="export.executorch", distribution="mapsto")
