"""EfficientNet-Lite0, with its ImageNet weights where wanted (extra `vision`): a mobile network that quantizes well.

Depthwise-separable inverted residuals ``x + P(relu6(D(relu6(E x))))`` (Tan and Le, "EfficientNet: Rethinking Model Scaling for
Convolutional Neural Networks", 2019; the Lite form has ReLU6 and no squeeze-and-excite).
"""

from __future__ import annotations

import dataclasses

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["EfficientnetLite0"]

_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""As in the weights' own training."""


class EfficientnetLite0(ForImages, Mapping[None, Network]):
    """The network for colour images, by default of 224 pixels."""

    pretrained: bool = True
    """Whether it has the ImageNet weights; their class scores with 1000 classes, else only the embedding's."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `MissingExtra` without the extra `vision`, `DomainError` for grey images."""
        from mapsto.kinds import Factory

        usual = Preprocessing(channels=3, size=(224, 224), mean=_MEAN, std=_STD)
        preprocessing, classes = self.image_input(ctx, usual=usual)
        if preprocessing.channels != 3:
            raise DomainError(
                f"it takes 3 channels, not {preprocessing.channels}",
                where="networks.efficientnet_lite0",
                hint="set channels to 3",
            )
        if self.pretrained:
            preprocessing = dataclasses.replace(preprocessing, mean=_MEAN, std=_STD)
        factory = "mapsto.nn.networks.efficientnet_lite0:efficientnet_lite0"
        tensors = None
        if self.pretrained:  # the weights become the network's own: it is rebuilt without the extra's file
            made = Factory(name=factory, arguments={"classes": count(classes), "pretrained": True}).build()
            tensors = made.state_dict()
        arguments = {"classes": count(classes), "pretrained": False}
        return network_of(factory, arguments, preprocessing, classes=classes, tensors=tensors)
