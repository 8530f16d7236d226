"""ResNet-12, the larger embedding of few-shot papers: four residual blocks of three convolutions, leaky ReLU and max-pooling.

``x ← pool(leaky(F(x) + W x))`` with DropBlock in the last two blocks (Lee et al., "Meta-Learning with Differentiable Convex
Optimization", 2019; Ghiasi et al., "DropBlock", 2018).
"""

from __future__ import annotations

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["Resnet12"]


class Resnet12(ForImages, Mapping[None, Network]):
    """A fresh ResNet-12, by default for colour images of 84 pixels."""

    width: int = Field(default=64, ge=2, multiple_of=2)
    """Channels of the first block; 64 in the paper."""
    drop: float = Field(default=0.0, ge=0, lt=1)
    """Share that DropBlock drops in training; 0.1 in the paper."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the image is too small."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(84, 84)))
        arguments = {
            "channels": preprocessing.channels,
            "classes": count(classes),
            "width": self.width,
            "drop": self.drop,
        }
        return network_of("mapsto.nn.networks.resnet12:resnet12", arguments, preprocessing, classes=classes)
