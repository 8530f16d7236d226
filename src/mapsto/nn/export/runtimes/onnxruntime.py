"""ONNX Runtime on the CPU: ``model.onnx``, for any batch size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.runtimes.onnxruntime import MODEL, NAME, TITLE, load, session

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapsto.kinds import Network

__all__ = ["MODEL", "NAME", "TITLE", "fused_operations", "load", "lowered", "runner"]


def lowered(network: Network) -> dict[str, bytes]:
    """The network as ONNX, int8 where it is quantized."""
    from mapsto.nn.export.onnx import to_onnx

    return {MODEL: to_onnx(network, fused=True)}


def runner(model: bytes, *, threads: int = 1) -> Callable[..., NDArray[Any]]:
    """As `load`, of a model in memory: a function from its inputs (arrays, in order) to its first output."""
    opened = session(model, threads=threads)
    names = [item.name for item in opened.get_inputs()]
    return lambda *inputs: opened.run(None, dict(zip(names, inputs, strict=True)))[0]


def fused_operations(model: bytes) -> Counter[str]:
    """How often each operation occurs in the graph that ONNX Runtime really runs: ``QLinearConv`` is an int8 convolution."""
    import tempfile

    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session(model, optimized=path)
        return Counter(str(node.op_type) for node in onnx.load(path).graph.node)
