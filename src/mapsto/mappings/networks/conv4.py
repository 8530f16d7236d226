"""Conv4, the network that few-shot papers share: blocks of 3×3 convolution, batch norm, ReLU and 2×2 max-pooling.

``f(x) = flatten(pool(relu(norm(W * x))) …)`` (Vinyals et al., "Matching Networks for One Shot Learning", 2016; Snell, Swersky and Zemel,
"Prototypical Networks for Few-shot Learning", 2017).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Json, Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import ForImages, count, network_of

__all__ = ["Conv4"]


class Conv4(ForImages, Mapping[None, Network]):
    """A fresh Conv4 for square images, by default grey of 28 pixels."""

    width: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] = 64
    """Channels of every convolution, 64 in Snell et al.; or those of each block's, [96, 192, 384, 512] in Bertinetto et al."""
    blocks: int = Field(default=4, ge=1, le=8)
    """How many; each halves the size, or `halvings` of them do."""
    downsampling: Literal["pool", "stride"] = "pool"
    """How a block halves the size: `pool` by max-pooling; `stride` by its convolution, and the embedding is the mean over what is left,
    as in MAML's network for Omniglot (Finn et al., 2017): about a quarter of the work."""
    halvings: int | None = Field(default=None, ge=0, le=8)
    """Blocks that halve the size, the first so many; None for all. Relation networks halve it twice in four blocks, for feature maps
    that are compared (Sung et al., 2018)."""

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) and len(self.width) != self.blocks:
            raise SpecError(
                f"field 'width': {len(self.width)} numbers for {self.blocks} blocks",
                where="networks.conv4",
                hint="give one number for all, or one for each block",
            )

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the image is not square or too small for the blocks."""
        preprocessing, classes = self.image_input(ctx, usual=Preprocessing(channels=1, size=(28, 28)))
        height, width = preprocessing.size
        if height != width:
            raise DomainError(
                f"the images are {height} × {width}", where="networks.conv4", hint="set size to make them square"
            )
        arguments: dict[str, Json] = {
            "channels": preprocessing.channels,
            "size": height,
            "width": self.width if isinstance(self.width, int) else list(self.width),
            "blocks": self.blocks,
            "classes": count(classes),
        }
        if self.downsampling != "pool":
            arguments["downsampling"] = self.downsampling
        if self.halvings is not None:
            arguments["halvings"] = self.halvings
        return network_of("mapsto.nn.networks.conv4:conv4", arguments, preprocessing, classes=classes)
