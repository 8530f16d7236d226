"""OpenVINO on the CPU: ``model.xml`` with ``model.bin``, made of the ONNX file; int8 kernels where the network is quantized.

For a batch of one the model is compiled with that size, which spares the kernels for any size their checks; other batches share a
second one. The files hold no versions and no counters, so the same network gives the same bytes anywhere.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import MissingExtra
from mapsto.nn.runtimes._converting import unable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Network
    from mapsto.nn.runtime import Run

NAME: str = "openvino"
TITLE: str = "OpenVINO"
MODEL: str = "model.xml"
WEIGHTS = "model.bin"


def lowered(network: Network) -> dict[str, bytes]:
    """The intermediate representation. Raises `DomainError` that names the operator which OpenVINO lacks."""
    import tempfile

    from mapsto.nn.onnx_export import to_onnx

    openvino = _openvino()
    model: Any = _known(lambda: openvino.Core().read_model(to_onnx(network)), openvino)
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        openvino.serialize(model, path)
        text = re.sub(r"\s*<rt_info>\s*<info name=.OpenVINO Runtime.[^>]*>\s*</rt_info>", "", path.read_text("utf-8"))
        return {MODEL: text.encode(), WEIGHTS: path.with_name(WEIGHTS).read_bytes()}


def load(files: Mapping[str, Path], *, threads: int = 1, names: Sequence[str] = ()) -> Run:
    """The model compiled for this CPU, in float32 where it is not int8."""
    import numpy as np

    openvino = _openvino()
    core = openvino.Core()
    content, weights = files[MODEL].read_bytes(), files[WEIGHTS].read_bytes()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    requests: dict[bool, Any] = {}

    def compiled(single: bool) -> Any:
        model = core.read_model(content, weights)
        if single:
            model.reshape({item.any_name: [1, *list(item.partial_shape)[1:]] for item in model.inputs})
        return _known(lambda: core.compile_model(model, "CPU", settings), openvino).create_infer_request()

    requests[True] = compiled(True)

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        single = len(inputs[0]) == 1
        if single not in requests:
            requests[single] = compiled(single)
        request = requests[single]
        # passing them to infer() takes longer than a small network
        for name, given in zip(names or request.model_inputs, inputs, strict=True):
            request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(given), shared_memory=True))
        request.infer(share_outputs=True)
        return request.get_output_tensor(0).data.copy()

    return run


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise MissingExtra("openvino", "edge", where="openvino") from error


def _known(work: Any, openvino: Any) -> Any:
    """What `work` gives; OpenVINO's error in our words."""
    try:
        return work()
    except RuntimeError as error:
        raise unable(f"OpenVINO {openvino.__version__.partition('-')[0]}", error, "openvino") from error
