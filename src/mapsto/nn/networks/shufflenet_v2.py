"""ShuffleNetV2: half of the channels pass a unit untouched, and the halves are shuffled between units.

Ma, Zhang, Zheng and Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", 2018, table 5. Shuffling and
splitting are one step here: each unit picks its halves by two lists of indices, which pruning edits, so that channels need not go in
pairs. The shuffles before layers that read all channels are left out: they would only rename them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["shufflenet_v2"]

WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
"""Channels of the three stages and of the last convolution by width."""
STEM = 24


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> list[nn.Module]:
    """1×1 or full convolution, batch norm, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    """3×3 depthwise convolution, batch norm."""
    layer = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [layer, nn.BatchNorm2d(channels)]


class Down(nn.Module):
    """Two branches that read all channels and halve the size, side by side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.branch1 = nn.Sequential(*_depthwise(inputs, 2), *_convolution(inputs, half))
        self.branch2 = nn.Sequential(*_convolution(inputs, half), *_depthwise(half, 2), *_convolution(half, half))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x)], 1)


class Unit(nn.Module):
    """One half of the shuffled channels as it is, the other through a branch."""

    left: Tensor
    right: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch2 = nn.Sequential(*_convolution(half, half), *_depthwise(half, 1), *_convolution(half, half))
        shuffled = torch.arange(channels).view(2, half).t().reshape(-1)
        self.register_buffer("left", shuffled[:half].clone(), persistent=False)
        self.register_buffer("right", shuffled[half:].clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.index_select(1, self.left), self.branch2(x.index_select(1, self.right))], 1)


class ShuffleNetV2(nn.Module):
    """Stem, three stages, a 1×1 convolution, global average pooling, and the classifier."""

    def __init__(
        self, *, channels: int, plan: Sequence[int], blocks: Sequence[int], small: bool, classes: int | None
    ) -> None:
        super().__init__()
        *stages, last = plan
        layers = _convolution(channels, STEM, 3, 1 if small else 2)
        if not small:
            layers.append(nn.MaxPool2d(3, 2, 1))
        before = STEM
        for outputs, count in zip(stages, blocks, strict=True):
            layers.append(nn.Sequential(Down(before, outputs), *(Unit(outputs) for _ in range(count - 1))))
            before = outputs
        self.features = nn.Sequential(*layers, *_convolution(before, last))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.embedding = last
        self.classifier = classifier_of(last, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return self.pool(self.features(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def shufflenet_v2(
    *,
    width: float = 1.0,
    blocks: Sequence[int] = (4, 8, 4),
    channels: int = 3,
    small: bool = True,
    classes: int | None = 10,
    plan: Sequence[int] | None = None,
) -> nn.Module:
    """ShuffleNetV2.

    Parameters
    ----------
    width
        0.5, 1, 1.5 or 2, as published.
    blocks
        Units of each stage, the first of which halves the size; (4, 8, 4) in the paper.
    channels
        Of the image.
    small
        Whether the stem keeps the size of the image, as for images of about 32 pixels.
    classes
        Outputs of the linear classifier; None for an embedding.
    plan
        Even channels of each stage, and those of the last convolution, in place of `width`: ``[16, 32, 64, 128]``.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> sum(p.numel() for p in shufflenet_v2(classes=1000).parameters())
    2278604
    """
    where = "shufflenet_v2"
    at_least(channels, 1, name="channels", where=where)
    if plan is None:
        if width not in WIDTHS:
            raise DomainError(f"width is {width!r}", where=where, hint="give 0.5, 1, 1.5 or 2, or plan")
        plan = WIDTHS[width]
    for count in blocks:
        at_least(count, 1, name="blocks", where=where)
    if len(plan) != len(blocks) + 1 or min(plan) < 2 or any(stage % 2 for stage in plan[:-1]):
        raise DomainError(
            f"plan is {list(plan)}, blocks {list(blocks)}",
            where=where,
            hint="give an even number of channels for each stage, and those of the last convolution",
        )
    return ShuffleNetV2(channels=channels, plan=plan, blocks=blocks, small=small, classes=classes)
