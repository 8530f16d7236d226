"""Export to OpenVINO: a folder that predicts wherever OpenVINO runs (Intel and Arm processors, Intel's GPUs and NPUs).

``package/model.xml`` with ``package/model.bin``, made of the ONNX file that `export.onnx` writes: quantizers stay as they are, and
OpenVINO's int8 kernels take them up; any batch size. The rest of the package is as in `export.onnx`.
"""

from __future__ import annotations

from typing import ClassVar

from mapsto.context import Context
from mapsto.kinds import Network, Package
from mapsto.mapping import Mapping
from mapsto.nn.export.package import Exported, packaged
from mapsto.nn.export.runtimes import openvino

__all__ = ["Openvino"]


class Openvino(Exported, Mapping[Network, Package]):
    """Write the network in OpenVINO's format and compare it with the original.

    Raises `MissingExtra` without the extra `edge`, `DomainError` where torch cannot export the network, OpenVINO lacks an operator or
    the outputs are not finite, and `DataError` where the data does not fit it.
    """

    version: ClassVar[int] = 3

    def apply(self, value: Network, ctx: Context) -> Package:
        return packaged(self, value, ctx, openvino, where=self.name)
