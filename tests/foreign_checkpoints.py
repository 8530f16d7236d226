"""Networks as users bring them: their own classes, whose weights come from a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Brightness(nn.Module):
    """Two classes: darker or brighter than the pixels' mean, which it expects at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.weight


class Spoken(nn.Module):
    """A small network for words: maps of 49 frames with 10 coefficients, shape (N, 1, 49, 10)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, (10, 4), 2, bias=False), nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4 * 20 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.relu(self.norm(self.conv(x))).flatten(1))


class Block(nn.Module):
    """Two convolutions, and the input added; where the width grows, by channels of zeros on both sides (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added))
        return F.relu(x + y)


class ResNet(nn.Module):
    """For CIFAR, three stages of 16, 32 and 64 channels; named as in many public checkpoints."""

    def __init__(self, blocks: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(a if i == 0 else b, b, stride if i == 0 else 1) for i in range(blocks)))
            for a, b, stride in widths
        )
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def resnet20(num_classes: int = 10) -> nn.Module:
    """Twenty layers."""
    return ResNet(3, num_classes)


class Threshold(nn.Module):
    """Says the second class of a row whose only number is above a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.limit - x, x - self.limit], 1)
