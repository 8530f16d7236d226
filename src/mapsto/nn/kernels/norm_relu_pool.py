"""Convolution, batch norm, ReLU and max-pooling in one: a convolutional learner's time, in a third of the passes over memory.

``y = maxpool₂(relu(γ (x − μ) r + β))`` with the mean μ and ``r = 1 / √(σ² + ε)`` of the batch itself. Only the winner of each
window carries a gradient, so the sums of batch norm's backward pass run over a quarter of the elements; its own backward pass,
which second-order meta-learning needs (Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017),
is written out too. Convolutions before them take fewer products (`FastConv`), or are not kept at all (`FirstConv`). The kernels
are C++ (``kernels/*.cpp``), compiled once for each machine into the cache folder; without a compiler the same formulas run as
PyTorch operations.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

from mapsto.errors import DomainError
from mapsto.native.compilation import SOURCES, give_up, library, missing

__all__ = [
    "FastConv",
    "FirstConv",
    "FusedNorm",
    "channels_last",
    "compiled_kernels",
    "fast_conv",
    "fuse",
    "is_fusable",
    "is_known",
    "norm_relu_pool",
    "why_not_compiled",
]

_LAST = torch.channels_last
_LARGE, _WIDE = 800, 10
"""Pixels of a batch, and of the shorter side of an image, from which Winograd's algorithm has been found to gain."""


class _Kernels(Protocol):
    """The three passes; dense tensors are channels-last, `picked` is what the forward pass noted of the winners."""

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The result (N, C, H // pool, W // pool), picked, mean (C,), 1 / standard deviation (C,)."""
        ...

    def backward(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        picked: Tensor,
        mean: Tensor,
        rstd: Tensor,
        pool: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, weight and bias from that of y."""
        ...

    def double_backward(
        self,
        v: Tensor,
        v_weight: Tensor,
        v_bias: Tensor,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        picked: Tensor,
        mean: Tensor,
        rstd: Tensor,
        pool: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of g, x and weight from those of the three outputs of `backward`; the bias has none."""
        ...


def norm_relu_pool(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = 1e-5,
    pool: int = 2,
    *,
    compiled: bool | None = None,
) -> Tensor:
    """Max-pooling of the ReLU of the batch norm of `x`, by the mean and variance of `x`; differentiable twice.

    Parameters
    ----------
    x
        Shape (N, C, H, W); fastest as channels-last. On a CPU in float32 or float64 it takes the fused path, otherwise
        PyTorch's own three operations.
    weight, bias
        γ and β, shape (C,); None for 1 and 0.
    eps
        Added to the variance.
    pool
        2 for windows of 2 × 2, of which an odd last row or column is dropped (it counts in the statistics); 1 for none.
    compiled
        Whether the compiled kernels are used; None for where they can be had.

    Returns
    -------
    Tensor
        Shape (N, C, H // pool, W // pool).

    Raises
    ------
    DomainError
        `pool` is neither 1 nor 2, `x` is not four-dimensional or too small, or it has one value per channel.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)
    >>> round(norm_relu_pool(x, None, None).item(), 3)
    1.604
    """
    if pool not in (1, 2):
        raise DomainError(f"windows of {pool} × {pool} are not supported", where="norm_relu_pool", hint="1 or 2")
    if x.ndim != 4 or min(x.shape[2:]) < pool:
        raise DomainError(
            f"an input of shape {tuple(x.shape)} cannot be pooled by {pool}",
            where="norm_relu_pool",
            hint="(N, C, H, W)",
        )
    if x.numel() <= x.shape[1]:
        raise DomainError(
            f"an input of shape {tuple(x.shape)} has one value per channel, which has no variance",
            where="norm_relu_pool",
            hint="give more images or larger ones",
        )
    if not is_known(x):
        found = relu(batch_norm(x, None, None, weight, bias, True, 0.0, eps))
        return max_pool2d(found, pool) if pool > 1 else found
    return _fused(x, weight, bias, eps, pool, compiled)[0]


def is_known(x: Tensor) -> bool:
    """Whether the fused path can be taken."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not _transformed()


def _fused(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, pool: int, compiled: bool | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and the mean (C,) and 1 / standard deviation (C,) of the batch."""
    scale = x.new_ones(x.shape[1]) if weight is None else weight
    shift = x.new_zeros(x.shape[1]) if bias is None else bias
    native = _native() if compiled is not False else None
    found = _NormReluPool.apply(x, scale, shift, eps, pool, _PLAIN if native is None else native)
    return cast("tuple[Tensor, Tensor, Tensor]", found)


def channels_last(images: Tensor) -> Tensor:
    """Images (N, C, H, W) as channels-last, also where C is 1, so that convolutions give channels-last in turn.

    With one channel both orders are the same in memory, and `Tensor.contiguous` leaves the strides of the other, from which
    the convolution would choose the other order for its many channels.

    >>> channels_last(torch.zeros(2, 1, 5, 5)).stride()
    (25, 1, 5, 1)
    """
    n, c, h, w = images.shape
    return _last(images).as_strided((n, c, h, w), (c * h * w, 1, c * w, c))


def _transformed() -> bool:
    """Whether `torch.func` is at work, through which such functions do not pass."""
    return bool(torch._C._are_functorch_transforms_active())  # pyright: ignore[reportAttributeAccessIssue]


class _NormReluPool(torch.autograd.Function):
    """The forward pass, whose backward pass is a function of its own; mean and 1 / standard deviation come along."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: int, kernels: _Kernels) -> Any:
        dense = _last(x)
        y, picked, mean, rstd = kernels.forward(dense, weight.contiguous(), bias.contiguous(), eps, pool)
        ctx.save_for_backward(x, weight, bias, picked, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        ctx.pool, ctx.kernels = pool, kernels
        return y, mean, rstd

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        found = _Backward.apply(outputs[0], *ctx.saved_tensors, ctx.pool, ctx.kernels)
        return (*cast("tuple[Tensor, Tensor, Tensor]", found), None, None, None)


class _Backward(torch.autograd.Function):
    """The backward pass; its gradients flow to g, x and weight, the bias shifts which elements pass and no more."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        picked: Tensor,
        mean: Tensor,
        rstd: Tensor,
        pool: int,
        kernels: _Kernels,
    ) -> Any:
        dense = (_last(g), _last(x))
        given = (*dense, weight.contiguous(), bias.contiguous(), picked, mean, rstd)
        ctx.save_for_backward(*given)
        ctx.pool, ctx.kernels = pool, kernels
        return kernels.backward(*given, pool)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        v, v_weight, v_bias = cast("tuple[Tensor, Tensor, Tensor]", outputs)
        v = _last(v)
        found = ctx.kernels.double_backward(v, v_weight.contiguous(), v_bias.contiguous(), *ctx.saved_tensors, ctx.pool)
        return (*found, None, None, None, None, None, None)


class _ConvNormReluPool(torch.autograd.Function):
    """As `_NormReluPool`, with the convolution before it, whose output is never kept; compiled only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        given = (x.contiguous(), kernel.contiguous(), weight.contiguous(), bias.contiguous())
        y, moments, mean, rstd = torch.ops.mapsto_norm_pool.first_forward(*given, eps)
        ctx.save_for_backward(x, kernel, weight, bias, moments, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        return y, mean, rstd

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        found = _ConvBackward.apply(outputs[0], *ctx.saved_tensors)
        return (None, *cast("tuple[Tensor, Tensor, Tensor]", found), None)


class _ConvBackward(torch.autograd.Function):
    """The backward pass; its gradients flow to g, kernel and weight."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        kernel: Tensor,
        weight: Tensor,
        bias: Tensor,
        moments: Tensor,
        mean: Tensor,
        rstd: Tensor,
    ) -> Any:
        images = (_last(g), x.contiguous())
        given = (*images, kernel.contiguous(), weight.contiguous(), bias.contiguous(), moments, mean, rstd)
        *found, sums = torch.ops.mapsto_norm_pool.first_backward(*given)
        ctx.save_for_backward(*given, sums)
        return tuple(found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = torch.ops.mapsto_norm_pool.first_double_backward(
            *(output.contiguous() for output in outputs), *ctx.saved_tensors
        )
        to_g, to_kernel, to_weight = cast("tuple[Tensor, Tensor, Tensor]", found)
        return to_g, None, to_kernel, to_weight, None, None, None, None


class _Conv(torch.autograd.Function):
    """A 3 × 3 convolution by Winograd's algorithm, or with `back` the gradient of its input from that of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, back: bool) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.back = back
        return cast("Tensor", torch.ops.mapsto_conv3x3.convolve(_last(x), _dense(kernel), back))

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, kernel = ctx.saved_tensors
        (g,) = cast("tuple[Tensor]", outputs)
        to_x = _Conv.apply(g, kernel, not ctx.back) if ctx.needs_input_grad[0] else None
        pair = (g, x) if ctx.back else (x, g)
        to_kernel = _KernelGradient.apply(*pair, _is_last(kernel)) if ctx.needs_input_grad[1] else None
        return to_x, to_kernel, None


class _KernelGradient(torch.autograd.Function):
    """The gradient of the kernel, laid out as that is, from the input and the gradient of the output, in both of which it is linear."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, last: bool) -> Tensor:
        ctx.save_for_backward(x, g)
        return cast("Tensor", torch.ops.mapsto_conv3x3.kernel_gradient(_last(x), _last(g), last))

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
        return cast("Tensor", torch.ops.mapsto_conv3x3_direct.convolve(_last(x), kernel, stride))

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        x, kernel = ctx.saved_tensors
        (g,) = cast("tuple[Tensor]", outputs)
        to_x, to_kernel, _ = ctx.needs_input_grad
        size = (x.shape[2], x.shape[3])
        return (
            _DirectInputGradient.apply(g, kernel, ctx.stride, size) if to_x else None,
            _DirectKernelGradient.apply(x, g, ctx.stride, _is_last(kernel)) if to_kernel else None,
            None,
        )


class _DirectInputGradient(torch.autograd.Function):
    """The gradient of its input, of height and width `size`, from that of its output and the kernel."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, kernel: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(g, kernel)
        ctx.stride = stride
        call = torch.ops.mapsto_conv3x3_direct.input_gradient
        return cast("Tensor", call(_last(g), kernel, stride, *size))

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        g, kernel = ctx.saved_tensors
        (v,) = cast("tuple[Tensor]", outputs)
        to_g, to_kernel, *_ = ctx.needs_input_grad
        return (
            _DirectConv.apply(v, kernel, ctx.stride) if to_g else None,
            _DirectKernelGradient.apply(v, g, ctx.stride, _is_last(kernel)) if to_kernel else None,
            None,
            None,
        )


class _DirectKernelGradient(torch.autograd.Function):
    """The gradient of its kernel, laid out as that is, from the input and the gradient of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, stride: int, last: bool) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.stride = stride
        return cast("Tensor", torch.ops.mapsto_conv3x3_direct.kernel_gradient(_last(x), _last(g), stride, last))

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


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=_LAST)


def _is_last(kernel: Tensor) -> bool:
    return not kernel.is_contiguous() and kernel.is_contiguous(memory_format=_LAST)


def _dense(kernel: Tensor) -> Tensor:
    return kernel if _is_last(kernel) else kernel.contiguous()


# -- the same passes as PyTorch operations


class _Plain:
    """`picked` holds the places of the winners in their images, int64, and is empty without pooling."""

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, mean, rstd = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        y = z.relu_()
        if pool == 1:
            return y, y.new_empty(0, dtype=torch.int64), mean, rstd
        y, places = torch.nn.functional.max_pool2d_with_indices(y, [pool, pool])
        return y, places, mean, rstd

    def backward(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        picked: Tensor,
        mean: Tensor,
        rstd: Tensor,
        pool: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        passed, _ = self._passed(g, x, weight, bias, picked, mean, rstd)
        spread = self._spread(passed, x, picked, pool)
        found = torch.ops.aten.native_batch_norm_backward(
            spread, x, weight, None, None, mean, rstd, True, 0.0, [True, True, True]
        )
        return cast("tuple[Tensor, Tensor, Tensor]", found)

    def double_backward(
        self,
        v: Tensor,
        v_weight: Tensor,
        v_bias: Tensor,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        picked: Tensor,
        mean: Tensor,
        rstd: Tensor,
        pool: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        over, count = (0, 2, 3), x.numel() // x.shape[1]
        passed, normal = self._passed(g, x, weight, bias, picked, mean, rstd)
        centred = (x - _map(mean)) * _map(rstd)
        sum_v, dot_v = v.sum(over), (v * centred).sum(over)
        sum_g, dot_g = passed.sum(over), (passed * normal).sum(over)
        won = v if not picked.numel() else _gather(v, picked)
        kernel = (passed * won).sum(over) - (sum_g * sum_v + dot_g * dot_v) / count
        # The gradient of the normalised input is `direct` at the winners and v · `through` everywhere.
        direct, through = v_weight - weight * rstd * dot_v / count, -weight * rstd * dot_g / count
        sum_h, dot_h = through * sum_v + direct * sum_g, through * dot_v + direct * dot_g
        to_g = _map(weight * rstd) * won + _map(direct) * normal + _map(v_bias - weight * rstd * sum_v / count)
        to_g = to_g * self._mask(normal, weight, bias)
        to_x = _map(rstd * through) * v + self._spread(passed * _map(rstd * direct), x, picked, pool)
        to_x = to_x - _map(rstd * sum_h / count) - centred * _map(rstd * (dot_h + weight * rstd * kernel) / count)
        return to_g, to_x, rstd * kernel

    def _passed(
        self, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, picked: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient that passes the ReLU, and the normalised winners."""
        normal = ((_gather(x, picked) if picked.numel() else x) - _map(mean)) * _map(rstd)
        return g * self._mask(normal, weight, bias), normal

    def _mask(self, normal: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return normal * _map(weight) + _map(bias) > 0

    def _spread(self, small: Tensor, like: Tensor, picked: Tensor, pool: int) -> Tensor:
        if not picked.numel():
            return small
        return torch.ops.aten.max_pool2d_with_indices_backward(
            small, like, [pool, pool], [pool, pool], [0, 0], [1, 1], False, picked
        )


_PLAIN = _Plain()


def _map(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def _gather(dense: Tensor, places: Tensor) -> Tensor:
    return dense.flatten(2).gather(2, places.flatten(2)).view(places.shape)


# -- the compiled kernels

_lock = threading.Lock()
_loaded: list[_Kernels | None] = []
_reason: list[str] = []


def compiled_kernels() -> bool:
    """Whether the compiled kernels are there; the first call on a machine compiles them, which takes about half a minute."""
    return _native() is not None


def why_not_compiled() -> str | None:
    """Why the compiled kernels are not there, for a note to the user; None where they are."""
    return None if compiled_kernels() else _reason[0]


def _native() -> _Kernels | None:
    if not _loaded:
        with _lock:
            if not _loaded:
                try:
                    kernels: _Kernels | None = _load()
                except DomainError:
                    raise  # the step's key says that they are there
                except Exception as error:  # whatever a compiler or a loader does: there is another way
                    _reason.append(f"no compiled kernels, so a slower way is taken: {error}")
                    kernels = None
                _loaded.append(kernels)
    return _loaded[0]


def _load() -> _Kernels:
    reason = missing()
    if reason is not None:
        raise RuntimeError(reason)
    place = library(SOURCES)
    try:
        return _checked(place)
    except Exception as error:
        give_up(place, f"they were compiled, but cannot be used: {error}")
        raise DomainError(
            f"the compiled kernels cannot be used: {error}",
            where=str(place),
            hint="run the same command again: it goes on without them, and its keys say so",
        ) from error


def _checked(place: Path) -> _Kernels:
    torch.ops.load_library(str(place))
    kernels = cast("_Kernels", torch.ops.mapsto_norm_pool)
    x = torch.arange(150.0).mul(0.7).sin().view(2, 3, 5, 5).contiguous(memory_format=_LAST)
    weight, bias = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 0.0, -0.1])
    expected, found = (which.forward(x, weight, bias, 1e-5, 2)[0] for which in (_PLAIN, kernels))
    if not torch.allclose(expected, found, atol=1e-5):
        raise RuntimeError(f"{place} computes wrong values")
    return kernels


# -- networks


@dataclass(frozen=True)
class _Images:
    """What a `FirstConv` hands to the `FusedNorm` behind it instead of its output."""

    images: Tensor
    kernel: Tensor


class FirstConv(nn.Module):
    """The first convolution of a network, left to the `FusedNorm` behind it where images of few channels want no gradient.

    Its output is by far the largest tensor of the network, and needs not be kept: mean and variance follow from the moments
    of the 3 × 3 patches, and winners are computed again.

    Parameters
    ----------
    conv
        Whose tensors it shares: 3 × 3, stride and padding 1, no bias, at most 3 input channels.
    tracks
        Whether the `FusedNorm` behind it goes by running statistics when it does not train.
    """

    def __init__(self, conv: nn.Conv2d, *, tracks: bool = False) -> None:
        super().__init__()
        self.weight, self.tracks, self.training = conv.weight, tracks, conv.training

    def forward(self, x: Tensor) -> Tensor | _Images:
        if self.tracks and not self.training:
            return conv2d(x, self.weight, padding=1)
        fits = x.ndim == 4 and x.device.type == "cpu" and x.dtype == self.weight.dtype and min(x.shape[2:]) > 1
        known = x.dtype in (torch.float32, torch.float64) and not x.requires_grad and not _transformed()
        if fits and known and x.shape[1] == self.weight.shape[1] and x.shape[0]:
            return _Images(x, self.weight)
        return conv2d(x, self.weight, padding=1)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


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
    known = x.ndim == 4 and is_known(x) and x.dtype == kernel.dtype and x.shape[1] == kernel.shape[1] and x.numel()
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


class FusedNorm(nn.Module):
    """A batch norm with the ReLU and the pooling that follow it.

    It has the parameters and buffers of a `torch.nn.BatchNorm2d` under the same names. As it is none, what changes the mode of
    batch norms passes it by.

    Parameters
    ----------
    norm
        Whose tensors it shares.
    pool
        2 or 1, as for `norm_relu_pool`.
    compiled
        As for `norm_relu_pool`.
    tracks
        Whether it keeps running statistics in training and goes by them otherwise, as `norm` does; else it always goes by the
        statistics of the batch, and keeps none.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: nn.BatchNorm2d, pool: int, compiled: bool | None = None, *, tracks: bool = False) -> None:
        super().__init__()
        self.eps, self.pool, self.compiled = norm.eps, pool, compiled
        self.tracks = tracks and norm.running_mean is not None
        self.momentum = norm.momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(norm, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.training = norm.training

    def forward(self, x: Tensor | _Images) -> Tensor:
        if not self.tracks and isinstance(x, Tensor):
            return norm_relu_pool(x, self.weight, self.bias, self.eps, self.pool, compiled=self.compiled)
        if isinstance(x, _Images):
            weight, bias = cast("Tensor", self.weight), cast("Tensor", self.bias)
            found = _ConvNormReluPool.apply(x.images, x.kernel, weight, bias, self.eps)
            y, mean, rstd = cast("tuple[Tensor, Tensor, Tensor]", found)
            values = x.images.shape[0] * x.images.shape[2] * x.images.shape[3]
        elif self.training and is_known(x):
            y, mean, rstd = _fused(x, self.weight, self.bias, self.eps, self.pool, self.compiled)
            values = x.numel() // x.shape[1]
        else:
            running = self.get_buffer("running_mean"), self.get_buffer("running_var")
            found = relu(batch_norm(x, *running, self.weight, self.bias, self.training, self._factor(), self.eps))
            return max_pool2d(found, self.pool) if self.pool > 1 else found
        if self.tracks:
            self._keep(mean, rstd, values)
        return y

    def _factor(self) -> float:
        """How far running statistics move; counts the batch."""
        if self.training:
            self.get_buffer("num_batches_tracked").add_(1)
        return 1 / int(self.get_buffer("num_batches_tracked")) if self.momentum is None else self.momentum

    def _keep(self, mean: Tensor, rstd: Tensor, values: int) -> None:
        with torch.no_grad():
            factor = self._factor()
            variance = (rstd.double().pow(-2) - self.eps).clamp(min=0) * (values / max(values - 1, 1))
            self.get_buffer("running_mean").lerp_(mean, factor)
            self.get_buffer("running_var").lerp_(variance.to(mean.dtype), factor)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, pool={self.pool}"


def fuse(
    module: nn.Module, *, compiled: bool | None = None, statistics: Literal["batch", "running"] = "batch"
) -> nn.Module:
    """A copy of a network, which shares its tensors, with every batch norm, ReLU and 2 × 2 max-pooling (if any) fused.

    Looked for is BatchNorm2d, ReLU, MaxPool2d(2), or the first two, one after another in an `nn.Sequential`; the ReLU and the
    pooling become `nn.Identity`, and all names of parameters and buffers stay. Other batch norms are left as they are. With
    the compiled kernels, 3 × 3 convolutions before them are taken in too (`FirstConv`, `FastConv`).

    Parameters
    ----------
    module
        Any network; unchanged.
    compiled
        As for `norm_relu_pool`.
    statistics
        ``batch``: those of the batch, always, and none are kept; ``running``: as the module's batch norms do.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    >>> fused, x = fuse(net, compiled=False), torch.randn(2, 1, 6, 6)
    >>> fused[1:]
    Sequential(
      (1): FusedNorm(eps=1e-05, pool=2)
      (2): Identity()
      (3): Identity()
    )
    >>> list(fused.state_dict()) == list(net.state_dict()), fused[0].weight is net[0].weight
    (True, True)
    >>> torch.allclose(fused(x), net(x), atol=1e-6)
    True
    """
    tensors = [*module.parameters(), *module.buffers()]
    fused = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    tracks = statistics == "running"
    for part, at, pooled in list(_sites(fused)):
        norm = cast("nn.BatchNorm2d", part[at])
        part[at] = FusedNorm(norm, 2 if pooled else 1, compiled, tracks=tracks)
        if at and compiled is not False and compiled_kernels() and _is_plain(part[at - 1]):
            conv = cast("nn.Conv2d", part[at - 1])
            narrow = conv.in_channels <= 3
            if pooled and narrow and norm.affine and conv.stride == (1, 1):
                part[at - 1] = FirstConv(conv, tracks=tracks)
            elif (narrow or conv.in_channels % 16 == 0) and conv.out_channels % 16 == 0:
                part[at - 1] = FastConv(conv)
        for dropped in range(at + 1, at + 2 + pooled):
            part[dropped] = nn.Identity()
    return fused


def is_fusable(module: nn.Module) -> bool:
    """Whether `fuse` would find anything.

    >>> is_fusable(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())), is_fusable(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    (True, False)
    """
    return next(_sites(module), None) is not None


def _sites(module: nn.Module) -> Iterator[tuple[nn.Sequential, int, bool]]:
    """Where in a sequence a batch norm stands with a ReLU behind it, and whether a max-pooling follows."""
    for part in module.modules():
        if isinstance(part, nn.Sequential):
            layers = list(part)
            for at, layer in enumerate(layers[:-1]):
                if _is(layer, nn.BatchNorm2d) and _is(layers[at + 1], nn.ReLU):
                    yield part, at, at + 2 < len(layers) and _halves(layers[at + 2])


def _is(module: nn.Module, kind: type[nn.Module]) -> bool:
    return type(module) is kind and not module._forward_hooks and not module._forward_pre_hooks


def _is_plain(module: nn.Module) -> bool:
    """Whether this is a 3 × 3 convolution with stride 1 or 2, padding 1, and no bias."""
    if not _is(module, nn.Conv2d):
        return False
    conv = cast("nn.Conv2d", module)
    wanted = ((conv.kernel_size, (3, 3)), (conv.padding, (1, 1)), (conv.dilation, (1, 1)))
    plain = conv.bias is None and conv.groups == 1 and conv.padding_mode == "zeros" and conv.stride in ((1, 1), (2, 2))
    return plain and all(value == number for value, number in wanted)


def _halves(module: nn.Module) -> bool:
    if not _is(module, nn.MaxPool2d):
        return False
    pool = cast("nn.MaxPool2d", module)
    wanted = ((pool.kernel_size, 2), (pool.stride, 2), (pool.padding, 0), (pool.dilation, 1))
    return not (pool.ceil_mode or pool.return_indices) and all(
        value in (number, (number, number)) for value, number in wanted
    )
