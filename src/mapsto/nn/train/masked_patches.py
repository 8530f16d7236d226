"""Masked autoencoding of a vision transformer: most patches are hidden, and a small decoder paints them from what the encoder saw.

``mean over hidden patches of ‖p̂ − (p − mean p) / std p‖²`` (He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022). The
encoder reads the visible patches alone: a step costs about a quarter of one on all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from mapsto.nn.networks.vit import Block, VisionTransformer

__all__ = ["MaskedAutoencoder"]


class MaskedAutoencoder(nn.Module):
    """A transformer with a decoder of some blocks as wide as it; images (N, C, H, W) → the loss."""

    def __init__(self, network: VisionTransformer, *, share: float, depth: int) -> None:
        super().__init__()
        self.network = network
        count, width = network.positions.shape[1:]
        channels, self.patch = network.patches.in_channels, network.patches.kernel_size[0]
        self.visible = max(1, round((1 - share) * count))
        self.masked = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, count, width))
        self.blocks = nn.Sequential(*(Block(width, _heads(width), 4 * width, 0.0) for _ in range(depth)))
        self.norm, self.pixels = nn.LayerNorm(width), nn.Linear(width, channels * self.patch**2)
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.trunc_normal_(self.masked, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        net = self.network
        tokens = net.patches(images).flatten(2).transpose(1, 2) + net.positions
        rows, count, width = tokens.shape
        order = torch.rand(rows, count, device=images.device).argsort(1)
        seen, hidden = order[:, : self.visible], order[:, self.visible :]
        encoded = net.norm(net.blocks(_taken(tokens, seen)))
        whole = torch.cat([encoded, self.masked.expand(rows, count - self.visible, width)], 1)
        painted = self.pixels(self.norm(self.blocks(_taken(whole, order.argsort(1)) + self.positions)))
        wanted = unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        spread = wanted.var(2, keepdim=True).add(1e-6).sqrt()
        wanted = (wanted - wanted.mean(2, keepdim=True)) / spread
        return (_taken(painted, hidden) - _taken(wanted, hidden)).square().mean()


def _taken(tokens: Tensor, places: Tensor) -> Tensor:
    """Of tokens (N, T, D) those at places (N, K) of each row."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


def _heads(width: int) -> int:
    """Heads of about 64 numbers each, as many as divide the width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
