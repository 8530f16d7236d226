"""``model.xml`` with ``model.bin`` in OpenVINO."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["opened"]

# ---- below this line: part of the runner


def opened(folder: Path) -> Callable[[Any], Any]:
    """The model: from the input (1, ...) to its first output (1, ...)."""
    core: Any = importlib.import_module("openvino").Core()
    model = core.read_model(str(folder / "model.xml"))
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)  # or another device, such as GPU or NPU
    return lambda x: compiled(x)[0]
