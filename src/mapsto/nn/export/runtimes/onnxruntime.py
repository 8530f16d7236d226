"""ONNX Runtime on the CPU: ``model.onnx``, for any batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapsto_runtime.runtimes.onnxruntime import MODEL, NAME, TITLE, load, session

if TYPE_CHECKING:
    from mapsto.kinds import Network

__all__ = ["MODEL", "NAME", "TITLE", "load", "lowered", "session"]


def lowered(network: Network) -> dict[str, bytes]:
    """The network as ONNX, int8 where it is quantized."""
    from mapsto.nn.export.onnx import to_onnx

    return {MODEL: to_onnx(network)}
