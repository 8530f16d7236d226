"""VGG with batch norm for small images: stages of 3×3 convolutions between 2×2 max-poolings, global average, one linear layer.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015; the CIFAR form of Zagoruyko,
"92.45% on CIFAR-10 in Torch", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of, one_of

__all__ = ["vgg"]

CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage by depth, which counts convolutions and the published form's three linear layers."""
MULTIPLES = (1, 2, 4, 8, 8)


class Vgg(nn.Module):
    """Stages, global average pooling, and the classifier."""

    def __init__(self, *, channels: int, plan: Sequence[Sequence[int]], classes: int | None, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for index, stage in enumerate(plan):
            if index:
                layers.append(nn.MaxPool2d(2))
            for width in stage:
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.embedding = before
        self.classifier = classifier_of(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return self.dropout(self.pool(self.features(x)).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def vgg(
    *,
    depth: int = 16,
    channels: int = 3,
    size: int = 32,
    width: int = 64,
    stages: int = 5,
    classes: int | None = 10,
    dropout: float = 0.0,
    plan: list[list[int]] | None = None,
) -> nn.Module:
    """VGG with batch norm.

    Parameters
    ----------
    depth
        11, 13, 16 or 19 as published, or 8: one convolution a stage.
    channels, size
        Of the square image; `size` in pixels, at least 2 ** (stages - 1).
    width
        Channels of the first stage; the stages have (1, 2, 4, 8, 8) times as many.
    stages
        How many of the five stages there are; max-pooling stands between them.
    classes
        Outputs of the linear classifier; None for an embedding.
    dropout
        Before the classifier, 0 to 1.
    plan
        Channels of each convolution of each stage, in place of depth, width and stages: ``[[32], [64, 64], [128]]``.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> sum(p.numel() for p in vgg(depth=16).parameters())
    14724042
    """
    where = "vgg"
    at_least(channels, 1, name="channels", where=where)
    if not 0 <= dropout < 1:
        raise DomainError(f"dropout is {dropout!r}", where=where, hint="give a number from 0 to below 1")
    if plan is None:
        one_of(depth, tuple(CONVOLUTIONS), name="depth", where=where)
        one_of(stages, (1, 2, 3, 4, 5), name="stages", where=where)
        at_least(width, 1, name="width", where=where)
        counts = CONVOLUTIONS[depth][:stages]
        plan = [[width * multiple] * count for multiple, count in zip(MULTIPLES, counts, strict=False)]
    if not plan or not all(plan) or min(min(stage) for stage in plan) < 1:
        raise DomainError(
            f"plan is {plan!r}", where=where, hint="give at least one convolution a stage, of at least one channel"
        )
    at_least(size, 2 ** (len(plan) - 1), name="size", where=where)
    return Vgg(channels=channels, plan=plan, classes=classes, dropout=dropout)
