"""DenseNet for small images: three blocks in which every layer is given the outputs of all layers before it.

``x_l = H_l([x_0, x_1, …, x_{l−1}])`` with H_l batch norm, ReLU and convolution (Huang, Liu, van der Maaten and Weinberger, "Densely
Connected Convolutional Networks", 2017).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["Densenet"]


class Densenet(ForImages, Mapping[None, Network]):
    """A fresh DenseNet, by default DenseNet-BC of 0.8 million parameters for colour images of 32 pixels."""

    depth: int = Field(default=100, ge=7)
    """Layers: 6 · n + 4 with bottlenecks, 3 · n + 4 without; 40, 100, 190 and 250 in the paper."""
    growth: int = Field(default=12, ge=1)
    """Channels that each layer adds; 12, 24 and 40 in the paper."""
    compression: float = Field(default=0.5, gt=0, le=1)
    """Share of the channels that stays between blocks; 0.5 in the paper's DenseNet-BC."""
    bottleneck: bool = True
    """Whether a 1×1 convolution to 4 · `growth` channels comes before each 3×3 one."""

    contract: ClassVar[dict[str, Any]] = {"depth": 10, "growth": 4, "size": 8}

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` for a depth that no number of layers gives, or an image that is too small."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(32, 32)))
        arguments = {
            "depth": self.depth,
            "growth": self.growth,
            "compression": self.compression,
            "bottleneck": self.bottleneck,
            "channels": preprocessing.channels,
            "classes": count(classes),
        }
        return network_of("mapsto.nn.networks.densenet:densenet", arguments, preprocessing, classes=classes)
