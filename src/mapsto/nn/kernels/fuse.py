"""Replace a network's convolutions, batch norms, ReLUs and poolings by fused ones that share its tensors.

Convolutions before a batch norm take fewer products (`FastConv`), or their output is not kept at all (`FirstConv`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

from mapsto.nn.kernels.compiled import compiled_kernels, is_supported, is_transformed
from mapsto.nn.kernels.conv import FastConv
from mapsto.nn.kernels.memory_layout import dense_channels_last
from mapsto.nn.kernels.norm_relu_pool import norm_relu_pool, norm_relu_pool_with_statistics

__all__ = ["FirstConv", "FusedNorm", "fuse", "is_fusable"]


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
        images = (dense_channels_last(g), x.contiguous())
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
        known = x.dtype in (torch.float32, torch.float64) and not x.requires_grad and not is_transformed()
        if fits and known and x.shape[1] == self.weight.shape[1] and x.shape[0]:
            return _Images(x, self.weight)
        return conv2d(x, self.weight, padding=1)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


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
        elif self.training and is_supported(x):
            y, mean, rstd = norm_relu_pool_with_statistics(
                x, self.weight, self.bias, self.eps, self.pool, self.compiled
            )
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
