"""``model.onnx`` in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["opened"]

# ---- below this line: part of the runner


def opened(folder: Path) -> Callable[[Any], Any]:
    """The model: from the input (1, ...) to its first output (1, ...)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1  # raise the latter for a large network
    session: Any = onnxruntime.InferenceSession(
        str(folder / "model.onnx"),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["WeightBiasQuantization"],  # would quantize what was left in float
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]
