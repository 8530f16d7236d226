"""LiteRT (TensorFlow Lite): ``model.tflite``, for one sample; int8 kernels where a layer's input and result are quantized.

The converter is in no extra: litert-converter 0.5 pins an xdsl, which it does not import, that excludes the typing-extensions which
pydantic needs, so pip must not look at its dependencies.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import MissingExtra
from mapsto.nn.runtimes._converting import quiet, unable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Network
    from mapsto.nn.runtime import Run

NAME: str = "litert"
TITLE: str = "LiteRT"
MODEL: str = "model.tflite"
CONVERTER = (
    "pip install 'mapsto[edge]' jax==0.10.2 immutabledict==4.3.1 && "
    "pip install --no-deps litert-torch==0.10.0 litert-converter==0.5.0 ai-edge-quantizer==0.10.0"
)
"""What installs the converter."""


def lowered(network: Network) -> dict[str, bytes]:
    """The flatbuffer. Raises `DomainError` that names the operator which LiteRT lacks."""
    from mapsto.nn.decomposed import decomposed
    from mapsto.nn.edits.quantizers import quantizers_of

    with quiet():
        try:
            converter: Any = importlib.import_module("litert_torch")
            pt2e: Any = importlib.import_module("litert_torch.quantize.pt2e_quantizer")
            config: Any = importlib.import_module("litert_torch.quantize.quant_config")
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "edge", where="export.litert", command=CONVERTER) from error
        graph, inputs = decomposed(network, codes=False, where="export.litert")
        settings: dict[str, Any] = {}
        if quantizers_of(network.module()):  # says that pairs are to be fused; the scales are those in the graph
            scheme = pt2e.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
            quantizer = pt2e.PT2EQuantizer().set_global(scheme)
            settings["quant_config"] = config.QuantConfig(pt2e_quantizer=quantizer)
        try:
            model: Any = converter.convert(graph, inputs, **settings)
            return {MODEL: bytes(model.model_content())}
        except Exception as error:  # its passes raise what they like
            raise unable(TITLE, error, "export.litert") from error


def load(files: Mapping[str, Path], *, threads: int = 1, names: Sequence[str] = ()) -> Run:
    """The model in LiteRT's interpreter, which hands what it can to XNNPACK."""
    import numpy as np

    try:
        library: Any = importlib.import_module("ai_edge_litert.interpreter")
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "edge", where="litert") from error
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
        interpreter.invoke()
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
