"""Export to LiteRT (TensorFlow Lite): a folder with ``model.tflite``, which Android, iOS and many embedded boards run.

Quantizers become pairs of quantize and dequantize with the network's own scales, which the converter fuses into int8 operators; a layer
whose result is not quantized (the last one) runs in float. The file is for one sample at a time. The rest of the package is as in
`export.onnx`.
"""

from __future__ import annotations

from typing import ClassVar

from mapsto.context import Context
from mapsto.kinds import Network, Package
from mapsto.mapping import Mapping
from mapsto.nn.export.package import Exported, packaged
from mapsto.nn.export.runtimes import litert

__all__ = ["Litert"]


class Litert(Exported, Mapping[Network, Package]):
    """Write the network as an LiteRT model and compare it with the original.

    Raises `MissingExtra` without the extra `edge`, `DomainError` where torch cannot export the network, its inputs vary in size, it is
    quantized in a way that LiteRT has no kernels for or the outputs are not finite, and `DataError` where the data does not fit it.
    """

    version: ClassVar[int] = 3

    def apply(self, value: Network, ctx: Context) -> Package:
        return packaged(self, value, ctx, litert, where=self.name, described={"batch": 1})
