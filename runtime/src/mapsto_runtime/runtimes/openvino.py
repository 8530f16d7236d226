"""OpenVINO on the CPU: ``model.xml`` with ``model.bin``.

For a batch of one the model is compiled with that size, which spares the kernels for any size their checks; other batches share a
second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import DomainError
from mapsto_runtime.runtimes._converting import optional, unable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run
    from mapsto_runtime.signature import Signature

NAME: str = "openvino"
TITLE: str = "OpenVINO"
MODEL: str = "model.xml"
WEIGHTS = "model.bin"


def load(files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
    """The model compiled for this CPU, in float32 where it is not int8."""
    import numpy as np

    openvino = optional("openvino", "openvino", where="openvino")
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
    taken = () if signature is None else signature.inputs

    def compiled(single: bool) -> Any:
        model = core.read_model(content, weights)
        if single:
            model.reshape({item.any_name: [1, *list(item.partial_shape)[1:]] for item in model.inputs})
        return known(lambda: core.compile_model(model, "CPU", settings), openvino).create_infer_request()

    requests[True] = compiled(True)

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        single = len(inputs[0]) == 1
        if single not in requests:
            requests[single] = compiled(single)
        request = requests[single]
        names = [spec.name for spec in taken] or request.model_inputs
        # passing them to infer() takes longer than a small network
        for name, given in zip(names, inputs, strict=True):
            request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(given), shared_memory=True))
        try:
            request.infer(share_outputs=True)
        except RuntimeError as error:  # an operator may fail only when it is run
            raise failed(error, openvino) from error
        return request.get_output_tensor(0).data.copy()

    return run


def known(work: Any, openvino: Any) -> Any:
    """What `work` gives; OpenVINO's error in our words."""
    try:
        return work()
    except RuntimeError as error:
        raise failed(error, openvino) from error


def failed(error: RuntimeError, openvino: Any) -> DomainError:
    """OpenVINO's error in our words."""
    return unable(f"{TITLE} {openvino.__version__.partition('-')[0]}", error, "openvino")
