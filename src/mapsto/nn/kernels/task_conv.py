"""Convolutions whose kernels differ from task to task, as products of matrices: under `torch.func.vmap` one batched product.

PyTorch vectorises such a convolution into one with as many groups as tasks, for which libraries have slow kernels or none. A
convolution is ``y = P(x) W`` with the patches P(x), shape (N H W, C k²), and its gradients are products and convolutions again, so
that it may be differentiated any number of times.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["convolve", "task_convolutions"]

Two = tuple[int, int]


def convolve(x: Tensor, kernel: Tensor, stride: Two, padding: Two) -> Tensor:
    """The convolution (N, K, H', W') of images (N, C, H, W) with a kernel (K, C, h, w); fit for `torch.func.vmap` and `grad`.

    >>> x, kernel = torch.rand(2, 3, 5, 5), torch.rand(4, 3, 3, 3)
    >>> expected = torch.nn.functional.conv2d(x, kernel, stride=2, padding=1)
    >>> torch.allclose(convolve(x, kernel, (2, 2), (1, 1)), expected, atol=1e-5)
    True
    """
    return cast("Tensor", _Convolution.apply(x, kernel, stride, padding))


def _patches(x: Tensor, size: Two, stride: Two, padding: Two) -> Tensor:
    """(N, C, H, W) → (N, H', W', h w C)."""
    (top, left), (down, right), (h, w) = padding, stride, size
    windows = pad(x, (left, left, top, top)).unfold(2, h, down).unfold(3, w, right)
    return windows.permute(0, 2, 3, 4, 5, 1).flatten(3)


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, stride: Two, padding: Two) -> Tensor:
        patches = _patches(x, (kernel.shape[2], kernel.shape[3]), stride, padding)
        matrix = kernel.permute(2, 3, 1, 0).flatten(0, 2)
        found = patches.flatten(0, 2) @ matrix
        return found.unflatten(0, patches.shape[:3]).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, kernel, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, kernel)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, kernel = ctx.saved_tensors
        (g,) = cast("tuple[Tensor]", outputs)
        to_x = to_kernel = None
        if ctx.needs_input_grad[0]:
            to_x = _InputGradient.apply(g, kernel, ctx.stride, ctx.padding, (x.shape[-2], x.shape[-1]))
        if ctx.needs_input_grad[1]:
            to_kernel = _KernelGradient.apply(x, g, ctx.stride, ctx.padding, (kernel.shape[-2], kernel.shape[-1]))
        return to_x, to_kernel, None, None


class _InputGradient(torch.autograd.Function):
    """The gradient of the images, of height and width `image`: a convolution of g, spread by the stride, with the kernel turned."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, kernel: Tensor, stride: Two, padding: Two, image: Two) -> Tensor:
        size = (kernel.shape[2], kernel.shape[3])
        turned = kernel.flip(2, 3).transpose(0, 1)
        spread = _spread(
            g, stride, tuple(side + 2 * p - k + 1 for side, p, k in zip(image, padding, size, strict=True))
        )
        around = (size[0] - 1 - padding[0], size[1] - 1 - padding[1])
        return _Convolution.forward(spread, turned, (1, 1), around)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, kernel, ctx.stride, ctx.padding, ctx.image = inputs
        ctx.save_for_backward(g, kernel)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        g, kernel = ctx.saved_tensors
        (v,) = cast("tuple[Tensor]", outputs)
        to_g = to_kernel = None
        if ctx.needs_input_grad[0]:
            to_g = _Convolution.apply(v, kernel, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            to_kernel = _KernelGradient.apply(v, g, ctx.stride, ctx.padding, (kernel.shape[-2], kernel.shape[-1]))
        return to_g, to_kernel, None, None, None


class _KernelGradient(torch.autograd.Function):
    """The gradient of the kernel, of height and width `size`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, g: Tensor, stride: Two, padding: Two, size: Two) -> Tensor:
        patches = _patches(x, size, stride, padding)
        found = patches.flatten(0, 2).transpose(0, 1) @ g.permute(0, 2, 3, 1).flatten(0, 2)
        return found.unflatten(0, (*size, -1)).permute(3, 2, 0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, g, ctx.stride, ctx.padding, ctx.size = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, g = ctx.saved_tensors
        (v,) = cast("tuple[Tensor]", outputs)
        to_x = to_g = None
        if ctx.needs_input_grad[0]:
            to_x = _InputGradient.apply(g, v, ctx.stride, ctx.padding, (x.shape[-2], x.shape[-1]))
        if ctx.needs_input_grad[1]:
            to_g = _Convolution.apply(x, v, ctx.stride, ctx.padding)
        return to_x, to_g, None, None, None


def _spread(g: Tensor, stride: Two, wanted: tuple[int, ...]) -> Tensor:
    """Zeros between the values of g (N, K, H', W'), to height and width `wanted`."""
    for dimension, step, length in zip((2, 3), stride, wanted, strict=True):
        if step > 1:
            wide = pad(g.unsqueeze(dimension + 1), (0, 0) * (3 - dimension) + (0, step - 1))
            g = wide.flatten(dimension, dimension + 1)
        have = g.shape[dimension]
        g = pad(g, (0, 0) * (3 - dimension) + (0, length - have))
    return g


class _TaskConvolution(nn.Conv2d):
    """A convolution by `convolve` where `torch.func` is at work."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch._C._are_functorch_transforms_active():  # pyright: ignore[reportAttributeAccessIssue]
            return super().forward(input)
        found = convolve(input, self.weight, cast("Two", self.stride), cast("Two", self.padding))
        return found if self.bias is None else found + self.bias.view(-1, 1, 1)


@contextmanager
def task_convolutions(module: nn.Module) -> Generator[None]:
    """Within the block convolutions of `module` that are neither grouped nor dilated are products of matrices under `torch.func`."""
    found = [part for part in module.modules() if type(part) is nn.Conv2d and _is_plain(part)]
    try:
        for part in found:
            part.__class__ = _TaskConvolution
        yield
    finally:
        for part in found:
            part.__class__ = nn.Conv2d


def _is_plain(part: nn.Conv2d) -> bool:
    known = part.groups == 1 and part.dilation == (1, 1) and part.padding_mode == "zeros"
    if not known or isinstance(part.padding, str):
        return False
    return all(around < side for around, side in zip(part.padding, part.kernel_size, strict=True))
