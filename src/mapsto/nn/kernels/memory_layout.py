"""Channels-last, the order in memory that the kernels work on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["channels_last", "dense_channels_last", "dense_kernel", "is_channels_last"]


def channels_last(images: Tensor) -> Tensor:
    """Images (N, C, H, W) as channels-last, also where C is 1, so that convolutions give channels-last in turn.

    With one channel both orders are the same in memory, and `Tensor.contiguous` leaves the strides of the other, from which
    the convolution would choose the other order for its many channels.

    >>> channels_last(torch.zeros(2, 1, 5, 5)).stride()
    (25, 1, 5, 1)
    """
    n, c, h, w = images.shape
    return dense_channels_last(images).as_strided((n, c, h, w), (c * h * w, 1, c * w, c))


def dense_channels_last(images: Tensor) -> Tensor:
    """Images (N, C, H, W) without gaps as channels-last; with one channel the strides stay as they are, see `channels_last`."""
    return images.contiguous(memory_format=torch.channels_last)


def is_channels_last(kernel: Tensor) -> bool:
    """Whether a kernel (K, C, H, W) is channels-last and not also contiguous in the usual order."""
    return not kernel.is_contiguous() and kernel.is_contiguous(memory_format=torch.channels_last)


def dense_kernel(kernel: Tensor) -> Tensor:
    """A kernel (K, C, H, W) without gaps, in the order that it has."""
    return kernel if is_channels_last(kernel) else kernel.contiguous()
