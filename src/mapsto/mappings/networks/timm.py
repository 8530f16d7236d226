"""Any image model of timm by its name (extra `timm`, which needs torchvision), without its head.

``f(x) = pool(body(x))``, pooled features as the embedding (Wightman, "PyTorch Image Models", 2019).
"""

from __future__ import annotations

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["Timm"]


class Timm(ForImages, Mapping[None, Network]):
    """A timm model for images, by default of the size and normalisation it was trained with."""

    model: str = Field(default="resnet18", min_length=1)
    """As ``timm.list_models()`` gives it."""
    pretrained: bool = False
    """Whether timm fetches its weights (from its model hub)."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `MissingExtra` without the extra `timm`, `DomainError` for an unknown model."""
        from mapsto.kinds import Factory

        usual = Preprocessing(channels=3, size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        preprocessing, classes = self.image_input(ctx, usual=usual)
        arguments = {"name": self.model, "classes": count(classes), "channels": preprocessing.channels}
        factory = "mapsto.nn.networks.timm:timm"
        tensors = None
        if self.pretrained:  # the weights become the network's own: it is rebuilt without the hub
            tensors = Factory(name=factory, arguments={**arguments, "pretrained": True}).build().state_dict()
        return network_of(factory, arguments, preprocessing, classes=classes, tensors=tensors)
