"""ResNet-12, the larger embedding of few-shot papers: four residual blocks of three convolutions, leaky ReLU and max-pooling.

Lee et al., "Meta-Learning with Differentiable Convex Optimization" (MetaOptNet), 2019: widths 64, 160, 320, 640, with DropBlock (Ghiasi
et al., "DropBlock: A regularization method for convolutional networks", 2018) in the last two blocks.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["resnet12"]


class DropBlock(nn.Module):
    """In training, zeroes squares of `block` × `block` pixels so that a share `rate` is lost, and scales up the rest."""

    def __init__(self, rate: float, block: int) -> None:
        super().__init__()
        self.rate = rate
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        height, width = x.shape[2:]
        block = min(self.block, height, width)
        places = (height - block + 1) * (width - block + 1)
        gamma = self.rate / block**2 * (height * width) / places
        seeds = torch.zeros_like(x)
        inner = seeds[:, :, : height - block + 1, : width - block + 1]
        inner.bernoulli_(min(1.0, gamma))
        padded = functional.pad(seeds, (block - 1, 0, block - 1, 0))
        kept = 1 - functional.max_pool2d(padded, block, stride=1)
        return x * kept * (kept.numel() / kept.sum().clamp(min=1))


class Block(nn.Module):
    """Three 3×3 convolutions, a 1×1 projection shortcut, leaky ReLU, 2×2 max-pooling."""

    def __init__(self, inputs: int, outputs: int, drop: nn.Module) -> None:
        super().__init__()
        widths = (inputs, outputs, outputs, outputs)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(3))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            out = norm(conv(out))
            if index < 2:
                out = functional.leaky_relu(out, 0.1)
        out = functional.leaky_relu(out + self.shortcut(x), 0.1)
        return self.drop(functional.max_pool2d(out, 2))


class ResNet12(nn.Module):
    """Four blocks, global average pooling, and the classifier."""

    def __init__(self, *, channels: int, classes: int | None, width: int, drop: float) -> None:
        super().__init__()
        widths = (channels, width, width * 5 // 2, width * 5, width * 10)
        drops = [nn.Identity(), nn.Identity(), DropBlock(drop, 5), DropBlock(drop, 5)]
        self.features = nn.Sequential(*(Block(a, b, d) for a, b, d in zip(widths, widths[1:], drops, strict=False)))
        self.embedding = widths[-1]
        self.classifier = classifier_of(self.embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def resnet12(*, channels: int = 3, classes: int | None = None, width: int = 64, drop: float = 0.0) -> nn.Module:
    """ResNet-12.

    Parameters
    ----------
    channels
        Of the image, at least 16 pixels in size.
    classes
        Outputs of the classifier; None for an embedding of 10 · `width` (640).
    width
        Channels of the first block, an even number; 64 in the paper.
    drop
        Share that DropBlock drops in training, 0 to below 1; 0.1 in the paper.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> import torch
    >>> resnet12()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 640])
    """
    at_least(channels, 1, name="channels", where="resnet12")
    at_least(width, 2, name="width", where="resnet12")
    if not 0 <= drop < 1:
        raise DomainError(f"drop is {drop!r}", where="resnet12", hint="give a number from 0 to below 1")
    return ResNet12(channels=channels, classes=classes, width=width, drop=drop)
