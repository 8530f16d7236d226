"""3 × 3 convolutions by Winograd's algorithm, or summed directly; differentiable twice.

``Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`` for windows d of 4 × 4 pixels gives 2 × 2 outputs with 16 products instead of 36 (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", 2016).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mapsto.nn.kernels.compiled import compiled_kernels, is_supported
from mapsto.nn.kernels.memory_layout import dense_channels_last, dense_kernel, is_channels_last

__all__ = ["FastConv", "fast_conv"]


_LARGE, _WIDE = 800, 10
"""Pixels of a batch, and of the shorter side of an image, from which Winograd's algorithm has been found to gain."""


class _Conv(torch.autograd.Function):
    """A 3 × 3 convolution by Winograd's algorithm, or with `back` the gradient of its input from that of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, back: bool) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.back = back
        return cast("Tensor", torch.ops.mapsto_conv3x3.convolve(dense_channels_last(x), dense_kernel(kernel), back))

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, kernel = ctx.saved_tensors
        (g,) = cast("tuple[Tensor]", outputs)
        to_x = _Conv.apply(g, kernel, not ctx.back) if ctx.needs_input_grad[0] else None
        pair = (g, x) if ctx.back else (x, g)
        to_kernel = _KernelGradient.apply(*pair, is_channels_last(kernel)) if ctx.needs_input_grad[1] else None
        return to_x, to_kernel, None


class _KernelGradient(torch.autograd.Function):
    """The gradient of the kernel, laid out as that is, from the input and the gradient of the output, in both of which it is linear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, last: bool) -> Tensor:
        ctx.save_for_backward(x, g)
        return cast(
            "Tensor", torch.ops.mapsto_conv3x3.kernel_gradient(dense_channels_last(x), dense_channels_last(g), last)
        )

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, g = ctx.saved_tensors
        return _Conv.apply(g, outputs[0], True), _Conv.apply(x, outputs[0], False), None


class _DirectConv(torch.autograd.Function):
    """A 3 × 3 convolution with stride 1 or 2, as the sum that it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.stride = stride
        return cast("Tensor", torch.ops.mapsto_conv3x3_direct.convolve(dense_channels_last(x), kernel, stride))

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, kernel = ctx.saved_tensors
        (g,) = cast("tuple[Tensor]", outputs)
        to_x, to_kernel, _ = ctx.needs_input_grad
        size = (x.shape[2], x.shape[3])
        return (
            _DirectInputGradient.apply(g, kernel, ctx.stride, size) if to_x else None,
            _DirectKernelGradient.apply(x, g, ctx.stride, is_channels_last(kernel)) if to_kernel else None,
            None,
        )


class _DirectInputGradient(torch.autograd.Function):
    """The gradient of its input, of height and width `size`, from that of its output and the kernel."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, kernel: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(g, kernel)
        ctx.stride = stride
        call = torch.ops.mapsto_conv3x3_direct.input_gradient
        return cast("Tensor", call(dense_channels_last(g), kernel, stride, *size))

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        g, kernel = ctx.saved_tensors
        (v,) = cast("tuple[Tensor]", outputs)
        to_g, to_kernel, *_ = ctx.needs_input_grad
        return (
            _DirectConv.apply(v, kernel, ctx.stride) if to_g else None,
            _DirectKernelGradient.apply(v, g, ctx.stride, is_channels_last(kernel)) if to_kernel else None,
            None,
            None,
        )


class _DirectKernelGradient(torch.autograd.Function):
    """The gradient of its kernel, laid out as that is, from the input and the gradient of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, stride: int, last: bool) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.stride = stride
        return cast(
            "Tensor",
            torch.ops.mapsto_conv3x3_direct.kernel_gradient(
                dense_channels_last(x), dense_channels_last(g), stride, last
            ),
        )

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, g = ctx.saved_tensors
        (v,) = cast("tuple[Tensor]", outputs)
        to_x, to_g, *_ = ctx.needs_input_grad
        size = (x.shape[2], x.shape[3])
        return (
            _DirectInputGradient.apply(g, v, ctx.stride, size) if to_x else None,
            _DirectConv.apply(x, v, ctx.stride) if to_g else None,
            None,
            None,
        )


def fast_conv(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """A 3 × 3 convolution with padding 1, without the start-up time of PyTorch's own, which exceeds the work itself where maps are small.

    Large maps with stride 1 go by Winograd's F(2 × 2, 3 × 3), which multiplies 2.25 times less, all others are summed directly. Where
    neither applies it is PyTorch's own.

    Parameters
    ----------
    x
        Shape (N, C, H, W); fastest as channels-last.
    kernel
        Shape (K, C, 3, 3).
    stride
        1 or 2.
    """
    known = x.ndim == 4 and is_supported(x) and x.dtype == kernel.dtype and x.shape[1] == kernel.shape[1] and x.numel()
    narrow = known and x.shape[1] % 16 > 0
    wrong = kernel.shape[0] % 16 or (narrow and (x.requires_grad or x.shape[1] > 3))
    if not known or wrong or not compiled_kernels():
        return conv2d(x, kernel, stride=stride, padding=1)
    large = x.numel() >= _LARGE * x.shape[1] and min(x.shape[2:]) >= _WIDE
    if large and stride == 1 and not narrow:
        return cast("Tensor", _Conv.apply(x, kernel, False))
    return cast("Tensor", _DirectConv.apply(x, kernel, stride))


class FastConv(nn.Module):
    """A convolution by `fast_conv`.

    Parameters
    ----------
    conv
        Whose tensors it shares: stride 1 or 2, padding 1, no bias, output channels in multiples of 16; input channels too, or at
        most 3, which then get no gradient.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.stride = conv.weight, conv.stride[0]

    def forward(self, x: Tensor) -> Tensor:
        return fast_conv(x, self.weight, self.stride)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, stride={self.stride}"
