"""A user's own module, importable."""

from __future__ import annotations

import importlib

import torch
from torch import nn


class MyNet(nn.Module):
    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.width = width
        self.bias = bias
        self.body = nn.Linear(4, width, bias=bias)
        self.head = nn.Linear(width, 3)
        self.head.weight.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu()) + self.body(x).sum(1, keepdim=True)


class Hidden(nn.Module):
    """Its argument is not kept under its name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def small(width: int = 3) -> nn.Module:
    """A module whose class does not say how it was built."""
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)).eval()


class Answers(nn.Module):
    """Two heads, whose outputs come in a container."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body, self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> object:
        x = self.body(x).relu()
        one, two = self.one(x), self.two(x)
        return {
            "dict": {"one": one, "two": two},
            "logits": {"aux": one, "logits": two},
            "tuple": (one, two),
            "list": [one, two],
            "single": (two,),
            "boxes": [{"boxes": one}],
        }[self.kind]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 8), nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.head((self.left(a) + self.right(b)).relu())


class Normed(nn.Module):
    """Its linear layer and its convolution have a norm of their weights, ``module:function``, or none."""

    def __init__(self, norm: str | None) -> None:
        super().__init__()
        self.norm = norm
        self.first, self.conv, self.head = nn.Linear(4, 8), nn.Conv1d(1, 4, 3), nn.Linear(4, 3)
        if norm is not None:
            path, _, name = norm.partition(":")
            for layer in (self.first, self.conv):
                getattr(importlib.import_module(path), name)(layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(self.first(x).relu().unsqueeze(1)).relu().mean(2))
