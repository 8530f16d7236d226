"""Vision transformer: patches as tokens, pre-norm blocks of self-attention and a two-layer perceptron, the mean over tokens.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2021, with learned positions; the mean in
place of a class token as in Beyer, Zhai and Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["vit"]


class Attention(nn.Module):
    """Multi-head self-attention; `qkv` makes queries, keys and values, each (heads, width of a head)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and perceptron, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.fc2(functional.gelu(self.fc1(self.norm2(x)))))


class VisionTransformer(nn.Module):
    """Patches, positions, blocks, norm, mean over tokens, and the classifier."""

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        patch: int,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        dropout: float,
        classes: int | None,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, (size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.embedding = width
        self.classifier = classifier_of(width, classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.blocks(tokens)).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def vit(
    *,
    size: int = 32,
    patch: int = 4,
    depth: int = 6,
    width: int = 192,
    heads: int = 3,
    hidden: int | None = None,
    dropout: float = 0.0,
    channels: int = 3,
    classes: int | None = 10,
) -> nn.Module:
    """A vision transformer.

    Parameters
    ----------
    size
        Of the square image in pixels, a multiple of `patch`.
    patch
        Width of the square patches that become tokens, pixels.
    depth
        Blocks; 12 in the paper.
    width
        Numbers of a token, a multiple of `heads`; 768 in the paper's ViT-B.
    heads
        Of the attention; 12 in the paper's ViT-B.
    hidden
        Width of the perceptrons; by default 4 · `width`, as in the paper.
    dropout
        Behind attention and perceptron, 0 to below 1.
    channels
        Of the image.
    classes
        Outputs of the linear classifier; None for an embedding.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> sum(p.numel() for p in vit(size=32, patch=4, depth=1, width=8, heads=2).parameters())
    1882
    """
    where = "vit"
    hidden = 4 * width if hidden is None else hidden
    for name, value in (
        ("patch", patch),
        ("depth", depth),
        ("heads", heads),
        ("width", width),
        ("hidden", hidden),
        ("channels", channels),
        ("size", size),
    ):
        at_least(value, 1, name=name, where=where)
    if size % patch or width % heads:
        raise DomainError(
            f"size {size} is no multiple of patch {patch}" if size % patch else f"width {width} of heads {heads}",
            where=where,
            hint="give size a multiple of patch, and width a multiple of heads",
        )
    if not 0 <= dropout < 1:
        raise DomainError(f"dropout is {dropout!r}", where=where, hint="give a number from 0 to below 1")
    return VisionTransformer(
        channels=channels,
        size=size,
        patch=patch,
        depth=depth,
        width=width,
        heads=heads,
        hidden=hidden,
        dropout=dropout,
        classes=classes,
    )
