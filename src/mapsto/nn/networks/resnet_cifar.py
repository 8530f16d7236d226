"""CIFAR ResNets: three stages of basic blocks on 16, 32 and 64 channels, with option A (padded) or B (projection) shortcuts.

He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2. Names of parameters are those of Y. Idelbayev's trained
weights ("Proper ResNet Implementation for CIFAR10/CIFAR100 in PyTorch", 2018).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mapsto.nn.networks._checks import at_least, classifier_of, one_of

__all__ = ["PaddedShortcut", "resnet_cifar"]


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and as many channels of zeros on either side as are lacking. No parameters.

    Pruning sets `before` and `after`, the channels of zeros on either side.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, added to the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                PaddedShortcut(inputs, outputs, stride)
                if shortcut == "A"
                else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNetCifar(nn.Module):
    """Stem, three stages, global average pooling, and the classifier under its published name, `linear`."""

    def __init__(self, *, blocks: int, channels: int, classes: int | None, shortcut: str, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, 1, shortcut)
        self.layer2 = self._stage(width, 2 * width, blocks, 2, shortcut)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2, shortcut)
        self.embedding = 4 * width
        self.linear = classifier_of(self.embedding, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return functional.adaptive_avg_pool2d(out, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.embed(x))


def resnet_cifar(
    *, depth: int = 20, channels: int = 3, classes: int | None = 10, shortcut: str = "A", width: int = 16
) -> nn.Module:
    """A CIFAR ResNet.

    Parameters
    ----------
    depth
        8, 20, 32, 44, 56 or 110: 6 · (blocks a stage) + 2 layers.
    channels
        Of the image, whose size is free (32 in the paper).
    classes
        Outputs of `linear`; None for an embedding of 4 · `width`.
    shortcut
        ``"A"``: padded, no parameters (the paper's on CIFAR); ``"B"``: 1×1 projection.
    width
        Channels of the first stage; 16 in the paper.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> sum(p.numel() for p in resnet_cifar(depth=20).parameters())
    269722
    """
    where = "resnet_cifar"
    one_of(depth, (8, 20, 32, 44, 56, 110), name="depth", where=where)
    one_of(shortcut, ("A", "B"), name="shortcut", where=where)
    at_least(channels, 1, name="channels", where=where)
    at_least(width, 1, name="width", where=where)
    return ResNetCifar(blocks=(depth - 2) // 6, channels=channels, classes=classes, shortcut=shortcut, width=width)
