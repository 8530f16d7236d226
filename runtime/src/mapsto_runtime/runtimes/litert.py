"""LiteRT (TensorFlow Lite): ``model.tflite``, for one sample at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.runtimes._converting import optional, unable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run
    from mapsto_runtime.signature import Signature

NAME: str = "litert"
TITLE: str = "LiteRT"
MODEL: str = "model.tflite"


def load(files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
    """The model in LiteRT's interpreter, which hands what it can to XNNPACK."""
    import numpy as np

    library = optional("ai_edge_litert.interpreter", "litert", where="litert")
    try:
        interpreter: Any = library.Interpreter(model_content=files[MODEL].read_bytes(), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise unable(TITLE, error, "litert") from error
    # args_0, args_1, … in the order of the network's inputs, which the interpreter does not keep
    places = sorted(interpreter.get_input_details(), key=lambda item: item["name"])
    output = interpreter.get_output_details()[0]

    def once(*inputs: NDArray[Any]) -> NDArray[Any]:
        for place, given in zip(places, inputs, strict=True):
            interpreter.set_tensor(place["index"], _encoded(given, place))
        try:
            interpreter.invoke()
        except RuntimeError as error:  # an operator may fail only when it is run
            raise unable(TITLE, error, "litert") from error
        return _decoded(interpreter.get_tensor(output["index"]), output)

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([once(*(given[i : i + 1] for given in inputs)) for i in range(len(inputs[0]))])

    return run


def _encoded(values: NDArray[Any], place: Mapping[str, Any]) -> NDArray[Any]:
    """Codes of real values where the converter made the model's input one of codes, since they are all that reads it."""
    import numpy as np

    step, zero = place["quantization"]
    if not step or not np.issubdtype(place["dtype"], np.integer):
        return values
    bounds = np.iinfo(place["dtype"])
    return np.clip(np.rint(values / np.float32(step)) + zero, bounds.min, bounds.max).astype(place["dtype"])


def _decoded(values: NDArray[Any], place: Mapping[str, Any]) -> NDArray[Any]:
    """Real values of an output that the converter left as codes."""
    import numpy as np

    step, zero = place["quantization"]
    if not step or not np.issubdtype(place["dtype"], np.integer):
        return values
    return (values.astype(np.float32) - zero) * np.float32(step)
