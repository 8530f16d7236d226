"""A network whose answers rest on known places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Corner"]


class Corner(nn.Module):
    """Class 1 by how bright the upper left quarter is, class 0 by the lower right one."""

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        low, high = images[..., half:, half:], images[..., :half, :half]
        return 10 * torch.stack([low.mean((1, 2, 3)), high.mean((1, 2, 3))], 1)
