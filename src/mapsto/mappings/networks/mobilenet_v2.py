"""MobileNetV2: inverted residuals with a wide depthwise convolution between two narrow ends.

``x + P(D(E(x)))`` with E and P 1×1 convolutions to and from t times as many channels and D depthwise (Sandler, Howard, Zhu, Zhmoginov
and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["MobilenetV2"]


class MobilenetV2(ForImages, Mapping[None, Network]):
    """A fresh MobileNetV2, by default for colour images of 32 pixels."""

    width: float = Field(default=1.0, gt=0, le=8)
    """Factor on the channels; 0.35 to 1.4 in the paper."""
    depth: float = Field(default=1.0, gt=0, le=8)
    """Factor on the blocks of each stage, rounded up; 1 in the paper."""
    small: bool | None = None
    """Whether the first two reductions of the image are left out; by default for images below 96 pixels."""

    contract: ClassVar[dict[str, Any]] = {"width": 0.25, "depth": 0.25, "size": 16}

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the image is too small."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(32, 32)))
        arguments = {
            "width": self.width,
            "depth": self.depth,
            "channels": preprocessing.channels,
            "small": min(preprocessing.size) < 96 if self.small is None else self.small,
            "classes": count(classes),
        }
        return network_of("mapsto.nn.networks.mobilenet_v2:mobilenet_v2", arguments, preprocessing, classes=classes)
