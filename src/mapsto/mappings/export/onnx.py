"""Export to ONNX: a folder that predicts anywhere ONNX Runtime runs, without torch and without the training half of mapsto.

``package/model.onnx`` (any batch size; int8 kernels for a quantized network) and ``package/manifest.json`` (format, hashes,
signature, parity). Parity is the greatest difference between the network in PyTorch and the file in ONNX Runtime, reported
beside the spread of the outputs, without which it says nothing. A learner's package also carries ``learner/`` for hosts that have
mapsto and, where its result is a linear layer, ``adapt.onnx``, the map from examples' embeddings to that layer, with which a
device adapts by itself; the manifest says which.
"""

from __future__ import annotations

from mapsto.context import Context
from mapsto.kinds import Network, Package
from mapsto.mapping import Mapping
from mapsto.nn.export.package import Exported, packaged
from mapsto.nn.export.runtimes import onnxruntime

__all__ = ["Onnx"]


class Onnx(Exported, Mapping[Network, Package]):
    """Write the network as ONNX and compare it with the original.

    Raises `DomainError` where torch cannot export the network or the outputs are not finite, and `DataError` where the data
    does not fit it.
    """

    def apply(self, value: Network, ctx: Context) -> Package:
        from mapsto.nn.export.onnx import OPSET

        return packaged(self, value, ctx, onnxruntime, where=self.name, described={"opset": OPSET})
