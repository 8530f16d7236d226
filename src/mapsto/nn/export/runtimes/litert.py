"""LiteRT (TensorFlow Lite): ``model.tflite``, for one sample; int8 kernels where a layer's input and result are quantized.

The converter is in no extra: litert-converter 0.5 pins an xdsl, which it does not import, that excludes the typing-extensions which
pydantic needs, so pip must not look at its dependencies.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mapsto.errors import MissingExtra
from mapsto_runtime.runtimes._converting import quiet, unable
from mapsto_runtime.runtimes.litert import MODEL, NAME, TITLE, load

if TYPE_CHECKING:
    from mapsto.kinds import Network

__all__ = ["CONVERTER", "MODEL", "NAME", "TITLE", "load", "lowered"]

CONVERTER = (
    "pip install 'mapsto[edge]' jax==0.10.2 immutabledict==4.3.1 && "
    "pip install --no-deps litert-torch==0.10.0 litert-converter==0.5.0 ai-edge-quantizer==0.10.0"
)
"""What installs the converter."""


def lowered(network: Network) -> dict[str, bytes]:
    """The flatbuffer. Raises `DomainError` that names the operator which LiteRT lacks."""
    from mapsto.nn.edits.quantizers import quantizers_of
    from mapsto.nn.export.pt2e import decomposed

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
