"""MobileNetV2: inverted residuals, a wide depthwise convolution between two narrow ends, without a nonlinearity at the end.

Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["mobilenet_v2"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage."""


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, ReLU6."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU6()]


class InvertedResidual(nn.Module):
    """1×1 to `inputs` · `expansion` channels, 3×3 depthwise, 1×1 to `outputs`; added to the input where the shapes are the same."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.layers = nn.Sequential(
            *(_convolution(inputs, wide) if expansion > 1 else ()),
            *_convolution(wide, wide, 3, stride, wide),
            *_convolution(wide, outputs)[:2],
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV2(nn.Module):
    """Stem, seven stages, a 1×1 convolution, global average pooling, and the classifier."""

    def __init__(self, *, channels: int, width: float, depth: float, small: bool, classes: int | None) -> None:
        super().__init__()
        before = _rounded(32 * width)
        layers: list[nn.Module] = [nn.Sequential(*_convolution(channels, before, 3, 1 if small else 2))]
        for number, (expansion, outputs, blocks, stride) in enumerate(STAGES):
            after = _rounded(outputs * width)
            for block in range(math.ceil(blocks * depth)):
                first = 1 if block or (small and number == 1) else stride
                layers.append(InvertedResidual(before, after, first, expansion))
                before = after
        self.embedding = _rounded(1280 * max(width, 1.0))
        layers.append(nn.Sequential(*_convolution(before, self.embedding)))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier_of(self.embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return self.pool(self.features(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and no more than a tenth below.

    >>> _rounded(32 * 0.35), _rounded(24 * 0.75), _rounded(1)
    (16, 24, 8)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def mobilenet_v2(
    *, width: float = 1.0, depth: float = 1.0, channels: int = 3, small: bool = True, classes: int | None = 10
) -> nn.Module:
    """MobileNetV2.

    Parameters
    ----------
    width
        Factor on the channels, which are rounded to multiples of 8; 0.35 to 1.4 in the paper.
    depth
        Factor on the blocks of each stage, rounded up; 1 in the paper.
    channels
        Of the image.
    small
        Whether the first convolution and the second stage keep the size of the image, as for images of about 32 pixels.
    classes
        Outputs of the linear classifier; None for an embedding (1280 · max(`width`, 1)).

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> sum(p.numel() for p in mobilenet_v2(classes=1000).parameters())
    3504872
    """
    where = "mobilenet_v2"
    at_least(channels, 1, name="channels", where=where)
    for name, value in (("width", width), ("depth", depth)):
        if not 0 < value <= 8:
            raise DomainError(f"{name} is {value!r}", where=where, hint="give a factor above 0 to 8")
    return MobileNetV2(channels=channels, width=width, depth=depth, small=small, classes=classes)
