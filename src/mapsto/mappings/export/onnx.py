"""Export to ONNX: a folder that predicts anywhere ONNX Runtime runs, without torch and without the training half of mapsto.

``package/model.onnx`` (any batch size; int8 kernels for a quantized network) and ``package/manifest.json`` (format, hashes,
signature, parity). Parity is the greatest difference between the network in PyTorch and the file in ONNX Runtime, reported
beside the spread of the outputs, without which it says nothing. A learner's package also carries ``learner/`` for hosts that have
mapsto and, where its result is a linear layer, ``adapt.onnx``, the map from examples' embeddings to that layer, with which a
device adapts by itself; the manifest says which.

A model that learnt from a stream is packaged as it is at that moment: of `online.tabular` with all members and their mixture (past
events and trees are constants, the last label stays the last one), of `online.ridge`, `prototypes`, `mlp` and `softmax`. Its package
takes a raw row of the table, or what the encoder takes on which it stands, and answers as the model does. What no graph holds, as
river's trees, `export.mapsto` packages for hosts that have mapsto.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mapsto import discovery
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Model, Network, Package, Stream
from mapsto.mapping import Mapping, StreamSource
from mapsto.nn.export.package import Exported, packaged
from mapsto.nn.export.runtimes import onnxruntime

__all__ = ["Onnx"]


class Onnx(Exported, Mapping[Network | Model, Package]):
    """Write the network as ONNX and compare it with the original.

    Raises `DomainError` where torch cannot export the network, the outputs are not finite or what a model learnt is no network, and
    `DataError` where the data does not fit it.
    """

    version: ClassVar[int] = 3

    stream: StreamSource | None = Field(
        default=None,
        description="Of a model: events for the parity report; by default the samples of `data`, or made-up ones.",
    )

    def apply(self, value: Network | Model, ctx: Context) -> Package:
        if isinstance(value, Model):
            from mapsto.nn.online.packaged_model import packaged_model

            stream = None if self.stream is None else ctx.resolve(self.stream, Stream)
            if stream is None and self.data is not None:
                stream = discovery.find("streams", "replay")(data=self.data)
            return packaged_model(value, stream, ctx, samples=self.samples, where=self.name)
        if self.stream is not None:
            raise DomainError(
                "a network is compared on `data`, not on a stream", where=self.name, hint="leave stream out"
            )
        from mapsto.nn.export.onnx import OPSET

        return packaged(self, value, ctx, onnxruntime, where=self.name, described={"opset": OPSET})
