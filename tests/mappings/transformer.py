"""A small vision transformer whose attention has one layer for query, key and value."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.kinds import Network, Preprocessing, trusting
from mapsto.nn.network.build import network_of

SIZE = 8


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, order: str) -> None:
        super().__init__()
        self.num_heads, self.width, self.order = heads, width, order
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "three first":
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        elif self.order == "heads first":
            q, k, v = self.qkv(x).unflatten(-1, (self.num_heads, 3, -1)).permute(3, 0, 2, 1, 4)
        else:  # sizes that do not follow the number of heads
            size = self.width // 4
            q, k, v = self.qkv(x).unflatten(-1, (3, 4, size)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, order: str) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, order)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    def __init__(
        self, width: int = 16, heads: int = 4, depth: int = 3, classes: int = 10, order: str = "three first"
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.blocks = nn.Sequential(*(Block(width, heads, order) for _ in range(depth)))
        self.classifier = nn.Linear(width, classes)

    def embed(self, x: Tensor) -> Tensor:
        return self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


@cache
def vit(order: str = "three first", heads: int = 4, depth: int = 3) -> Network:
    torch.manual_seed(0)
    with trusting("tests"):
        return network_of(
            "tests.mappings.transformer:Vit",
            {"order": order, "heads": heads, "depth": depth},
            Preprocessing(channels=1, size=(SIZE, SIZE)),
            classes=tuple("0123456789"),
        )
