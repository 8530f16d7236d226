"""A vision transformer: patches as tokens, pre-norm blocks of self-attention and a perceptron, the mean over tokens.

``x ← x + MSA(LN(x))``, ``x ← x + MLP(LN(x))`` (Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at
Scale", 2021).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["Vit"]


class Vit(ForImages, Mapping[None, Network]):
    """A fresh vision transformer for square images, by default of 2.7 million parameters for colour images of 32 pixels."""

    patch: int = Field(default=4, ge=1)
    """Width of the square patches that become tokens, pixels; 16 in the paper, for images of 224."""
    depth: int = Field(default=6, ge=1)
    """Blocks; 12 in the paper's ViT-B."""
    width: int = Field(default=192, ge=1)
    """Numbers of a token, a multiple of `heads`; 768 in the paper's ViT-B."""
    heads: int = Field(default=3, ge=1)
    """Of the attention; 12 in the paper's ViT-B."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of the perceptrons; by default 4 · `width`, as in the paper."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of what each attention and perceptron gives that is dropped in training."""

    contract: ClassVar[dict[str, Any]] = {"size": 8, "depth": 1, "width": 8, "heads": 2}

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the image is not square or no multiple of the patches, or the width none of the heads."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=3, size=(32, 32)))
        height, width = preprocessing.size
        if height != width:
            raise DomainError(
                f"the images are {height} × {width}", where="networks.vit", hint="set size to make them square"
            )
        arguments = {
            "size": height,
            "patch": self.patch,
            "depth": self.depth,
            "width": self.width,
            "heads": self.heads,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "channels": preprocessing.channels,
            "classes": count(classes),
        }
        return network_of("mapsto.nn.networks.vit:vit", arguments, preprocessing, classes=classes)
