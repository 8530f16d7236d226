"""The ResNets of the CIFAR experiments: three stages of basic blocks at 32, 16 and 8 pixels.

``x ← relu(F(x) + shortcut(x))``, the shortcut padded with zeros (A) or projected (B) where the shape changes (He, Zhang, Ren and Sun,
"Deep Residual Learning for Image Recognition", 2016, section 4.2).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["ResnetCifar"]


class ResnetCifar(ForImages, Mapping[None, Network]):
    """A fresh ResNet, by default for colour images of 32 pixels."""

    depth: Literal[8, 20, 32, 44, 56, 110] = 20
    """Layers: 6 · (blocks a stage) + 2."""
    shortcut: Literal["A", "B"] = "A"
    """`A`: padded, without parameters, as in the paper; `B`: a 1×1 projection."""
    width: int = Field(default=16, ge=1)
    """Channels of the first stage; 16 in the paper."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the image is too small."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(32, 32)))
        arguments = {
            "depth": self.depth,
            "channels": preprocessing.channels,
            "classes": count(classes),
            "shortcut": self.shortcut,
            "width": self.width,
        }
        return network_of("mapsto.nn.networks.resnet_cifar:resnet_cifar", arguments, preprocessing, classes=classes)
