"""DenseNet for small images: every layer is given the outputs of all layers before it, side by side.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", 2017, section 4.2: three dense blocks with
average pooling between them; with `bottleneck` and `compression` below 1 it is DenseNet-BC.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["densenet"]


def _normed(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Batch norm, ReLU, convolution."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(inputs), nn.ReLU(), convolution]


class DenseLayer(nn.Sequential):
    """`growth` new channels, put behind those that were given."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        narrow = _normed(inputs, 4 * growth, 1) if bottleneck else []
        super().__init__(*narrow, *_normed(4 * growth if bottleneck else inputs, growth, 3))

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([input, super().forward(input)], 1)


class DenseNet(nn.Module):
    """Stem, three dense blocks with transitions between them, global average pooling, and the classifier."""

    def __init__(
        self, *, channels: int, layers: int, growth: int, compression: float, bottleneck: bool, classes: int | None
    ) -> None:
        super().__init__()
        width = 2 * growth if bottleneck else 16
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for block in range(3):
            parts.append(
                nn.Sequential(*(DenseLayer(width + index * growth, growth, bottleneck) for index in range(layers)))
            )
            width += layers * growth
            if block < 2:
                narrow = int(width * compression)
                parts.append(nn.Sequential(*_normed(width, narrow, 1), nn.AvgPool2d(2)))
                width = narrow
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.embedding = width
        self.classifier = classifier_of(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def densenet(
    *,
    depth: int = 100,
    growth: int = 12,
    compression: float = 0.5,
    bottleneck: bool = True,
    channels: int = 3,
    classes: int | None = 10,
) -> nn.Module:
    """A DenseNet for images of at least 4 pixels.

    Parameters
    ----------
    depth
        Layers: 6 · n + 4 with bottlenecks (100, 190, 250 in the paper), 3 · n + 4 without (40).
    growth
        Channels that each layer adds.
    compression
        Share of the channels that a transition keeps, above 0 to 1; 0.5 in the paper.
    bottleneck
        A 1×1 convolution to 4 · `growth` channels before each 3×3 one.
    channels
        Of the image.
    classes
        Outputs of the linear classifier; None for an embedding.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> sum(p.numel() for p in densenet(depth=100, growth=12).parameters())
    769162
    """
    where = "densenet"
    each = 6 if bottleneck else 3
    at_least(depth, each + 4, name="depth", where=where)
    if (depth - 4) % each:
        raise DomainError(f"depth is {depth}", where=where, hint=f"give {each} · n + 4, such as {each * 6 + 4}")
    at_least(growth, 1, name="growth", where=where)
    at_least(channels, 1, name="channels", where=where)
    if not 0 < compression <= 1:
        raise DomainError(f"compression is {compression!r}", where=where, hint="give a number above 0 to 1")
    return DenseNet(
        channels=channels,
        layers=(depth - 4) // each,
        growth=growth,
        compression=compression,
        bottleneck=bottleneck,
        classes=classes,
    )
