"""OpenVINO on the CPU: ``model.xml`` with ``model.bin``, made of the ONNX file; int8 kernels where the network is quantized.

The files hold no versions and no counters, so the same network gives the same bytes anywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.runtimes._converting import optional
from mapsto_runtime.runtimes.openvino import MODEL, NAME, TITLE, WEIGHTS, known, load

if TYPE_CHECKING:
    from mapsto.kinds import Network

__all__ = ["MODEL", "NAME", "TITLE", "WEIGHTS", "load", "lowered"]


def lowered(network: Network) -> dict[str, bytes]:
    """The intermediate representation. Raises `DomainError` that names the operator which OpenVINO lacks."""
    import tempfile

    from mapsto.nn.export.onnx import to_onnx

    openvino = optional("openvino", "edge", where="export.openvino", distribution="mapsto")
    model: Any = known(lambda: openvino.Core().read_model(to_onnx(network)), openvino)
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        openvino.serialize(model, path)
        text = re.sub(r"\s*<rt_info>\s*<info name=.OpenVINO Runtime.[^>]*>\s*</rt_info>", "", path.read_text("utf-8"))
        return {MODEL: text.encode(), WEIGHTS: path.with_name(WEIGHTS).read_bytes()}
