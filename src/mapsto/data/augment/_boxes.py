"""Boxes in images, given as shares of their sides, so that images of any size have the same."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inside"]


def inside(centre: Tensor, extent: Tensor, size: tuple[int, int]) -> Tensor:
    """Which pixels have their middle in a box, bool, shape (N, 1, H, W).

    Parameters
    ----------
    centre, extent
        Rows and columns as shares of the sides, each (2, N); what sticks out of the image is cut off.
    size
        H and W, in pixels.

    >>> inside(torch.tensor([[0.5], [0.25]]), torch.tensor([[1.0], [0.5]]), (2, 4)).long()
    tensor([[[[1, 1, 0, 0],
              [1, 1, 0, 0]]]])
    """
    within: list[Tensor] = []
    for axis, length in enumerate(size):
        middles = (torch.arange(length, device=centre.device) + 0.5) / length
        low = centre[axis, :, None] - extent[axis, :, None] / 2
        within.append((middles >= low) & (middles < low + extent[axis, :, None]))
    return (within[0][:, :, None] & within[1][:, None, :])[:, None]
