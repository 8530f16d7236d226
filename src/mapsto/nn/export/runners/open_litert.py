"""``model.tflite`` in LiteRT."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["opened"]

# ---- below this line: part of the runner


def opened(folder: Path) -> Callable[[Any], Any]:
    """The model: from the input (1, ...) to its first output (1, ...)."""
    library: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = library.Interpreter(str(folder / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    (taken,), given = interpreter.get_input_details(), interpreter.get_output_details()[0]

    def coded(details: Any) -> bool:  # where it takes or gives codes of real numbers
        return bool(details["quantization"][0]) and np.issubdtype(details["dtype"], np.integer)

    def run(x: Any) -> Any:
        if coded(taken):
            (step, zero), bounds = taken["quantization"], np.iinfo(taken["dtype"])
            x = np.clip(np.rint(x / np.float32(step)) + zero, bounds.min, bounds.max).astype(taken["dtype"])
        interpreter.set_tensor(taken["index"], x)
        interpreter.invoke()
        y, (step, zero) = interpreter.get_tensor(given["index"]), given["quantization"]
        return (y.astype(np.float32) - zero) * np.float32(step) if coded(given) else y

    return run
