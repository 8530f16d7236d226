"""A user's own module, importable."""

from __future__ import annotations

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
