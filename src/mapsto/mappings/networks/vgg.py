"""VGG with batch norm for small images: stages of 3×3 convolutions between 2×2 max-poolings, the average, one linear layer.

``f(x) = mean_xy(relu(norm(W * …)))`` (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
2015; the form for CIFAR of Zagoruyko, "92.45% on CIFAR-10 in Torch", 2015).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from mapsto.context import Context
from mapsto.kinds import Json, Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["Vgg"]


class Vgg(ForImages, Mapping[None, Network]):
    """A fresh VGG, by default for colour images of 32 pixels."""

    depth: Literal[8, 11, 13, 16, 19] = 16
    """Layers as published; 8 has one convolution a stage."""
    width: int = Field(default=64, ge=1)
    """Channels of the first stage; the stages have (1, 2, 4, 8, 8) times as many."""
    stages: int = Field(default=5, ge=1, le=5)
    """How many of the five stages there are."""
    plan: tuple[tuple[PositiveInt, ...], ...] | None = None
    """Channels of each convolution of each stage, in place of depth, width and stages: ``[[32], [64, 64], [128]]``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the embedding dropped in training."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the image is too small for the stages."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(32, 32)))
        arguments: dict[str, Json] = {
            "depth": self.depth,
            "channels": preprocessing.channels,
            "size": min(preprocessing.size),
            "width": self.width,
            "stages": self.stages,
            "classes": count(classes),
            "dropout": self.dropout,
            "plan": [list(stage) for stage in self.plan] if self.plan is not None else None,
        }
        return network_of("mapsto.nn.networks.vgg:vgg", arguments, preprocessing, classes=classes)
