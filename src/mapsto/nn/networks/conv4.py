"""Conv4, the embedding that few-shot papers share: four blocks of 3×3 convolution, batch norm, ReLU and 2×2 max-pooling.

Vinyals et al., "Matching Networks for One Shot Learning", 2016; Snell et al., "Prototypical Networks", 2017 (width 64). With strides
instead of pooling and the mean over what is left: Finn et al., "Model-Agnostic Meta-Learning", 2017, on Omniglot.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["Downsampling", "conv4", "widths"]

Downsampling: TypeAlias = Literal["pool", "stride"]


class Conv4(nn.Module):
    """Blocks, then the flattened feature map, or with strides its mean, as the embedding, then the classifier."""

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        width: Sequence[int],
        classes: int | None,
        downsampling: Downsampling,
        halvings: int,
    ) -> None:
        super().__init__()
        pools = downsampling == "pool"
        self.downsampling = downsampling
        layers = (
            nn.Sequential(
                nn.Conv2d(
                    before,
                    after,
                    3,
                    1 if pools or index >= halvings else 2,
                    padding=1,
                    bias=False,
                ),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                *([nn.MaxPool2d(2)] if pools and index < halvings else []),
            )
            for index, (before, after) in enumerate(pairwise([channels, *width]))
        )
        self.features = nn.Sequential(*layers)
        self.embedding = width[-1] * (size // 2**halvings) ** 2 if pools else width[-1]
        self.classifier = classifier_of(self.embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        found = self.features(x)
        return found.flatten(1) if self.downsampling == "pool" else found.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def conv4(
    *,
    channels: int = 1,
    size: int = 28,
    width: int | Sequence[int] = 64,
    blocks: int = 4,
    classes: int | None = None,
    downsampling: Downsampling = "pool",
    halvings: int | None = None,
) -> nn.Module:
    """Conv4 for square images.

    Parameters
    ----------
    channels, size
        Of the image; `size` in pixels, at least 2 ** `halvings`.
    width
        Channels of every convolution, or those of each block's.
    blocks
        How many.
    classes
        Outputs of the linear classifier; None for an embedding, shape (N, W · (size // 2**halvings)²) with W channels in the last
        block, or (N, W) with strides.
    downsampling
        How a block halves the size: max-pooling of 2 × 2, or convolutions with stride 2, which are a quarter of the work.
    halvings
        Blocks that halve the size, the first so many; None for all.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> import torch
    >>> conv4(channels=1, size=28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    >>> conv4(size=84, downsampling="stride")(torch.zeros(2, 1, 84, 84)).shape
    torch.Size([2, 64])
    >>> conv4(size=28, halvings=2)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3136])
    >>> conv4(channels=3, size=32, width=[96, 192, 384, 512])(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 2048])
    """
    where = "conv4"
    for name, value in (("channels", channels), ("blocks", blocks)):
        at_least(value, 1, name=name, where=where)
    counts = widths(width, blocks)
    for count in counts:
        at_least(count, 1, name="width", where=where)
    halved = blocks if halvings is None else halvings
    if not 0 <= halved <= blocks:
        raise DomainError(f"halvings is {halved}", where=where, hint=f"0 to {blocks}, the blocks that there are")
    at_least(size, 2**halved, name="size", where=where)
    if downsampling not in get_args(Downsampling):
        raise DomainError(
            f"downsampling is '{downsampling}'", where=where, hint=f"one of {', '.join(get_args(Downsampling))}"
        )
    return Conv4(
        channels=channels,
        size=size,
        width=counts,
        classes=classes,
        downsampling=downsampling,
        halvings=halved,
    )


def widths(width: int | Sequence[int], blocks: int) -> list[int]:
    """The channels of each block.

    Raises
    ------
    DomainError
        As many numbers are not given as there are blocks.

    >>> widths(64, 3), widths([8, 16], 2)
    ([64, 64, 64], [8, 16])
    """
    found = [width] * blocks if isinstance(width, int) else list(width)
    if len(found) != blocks:
        raise DomainError(
            f"width has {len(found)} numbers for {blocks} blocks", where="conv4", hint="give one number, or one a block"
        )
    return found
