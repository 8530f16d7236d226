"""Batch norm, ReLU and max-pooling in one: a convolutional learner's time, in a third of the passes over memory.

``y = maxpool₂(relu(γ (x − μ) r + β))`` with the mean μ and ``r = 1 / √(σ² + ε)`` of the batch itself. Only the winner of each
window carries a gradient, so the sums of batch norm's backward pass run over a quarter of the elements; its own backward pass,
which second-order meta-learning needs (Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017),
is written out too. Without a compiler the same formulas run as PyTorch operations.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, max_pool2d, relu

from mapsto.errors import DomainError
from mapsto.nn.kernels.compiled import is_supported, loaded_kernels
from mapsto.nn.kernels.memory_layout import dense_channels_last
from mapsto.nn.kernels.norm_pool_passes import PLAIN, NormPoolKernels

__all__ = ["norm_relu_pool", "norm_relu_pool_with_statistics"]


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
    if not is_supported(x):
        found = relu(batch_norm(x, None, None, weight, bias, True, 0.0, eps))
        return max_pool2d(found, pool) if pool > 1 else found
    return norm_relu_pool_with_statistics(x, weight, bias, eps, pool, compiled)[0]


def norm_relu_pool_with_statistics(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, pool: int, compiled: bool | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and the mean (C,) and 1 / standard deviation (C,) of the batch."""
    scale = x.new_ones(x.shape[1]) if weight is None else weight
    shift = x.new_zeros(x.shape[1]) if bias is None else bias
    native = loaded_kernels() if compiled is not False else None
    found = _NormReluPool.apply(x, scale, shift, eps, pool, PLAIN if native is None else native)
    return cast("tuple[Tensor, Tensor, Tensor]", found)


class _NormReluPool(torch.autograd.Function):
    """The forward pass, whose backward pass is a function of its own; mean and 1 / standard deviation come along."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: int, kernels: NormPoolKernels
    ) -> Any:
        dense = dense_channels_last(x)
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
        kernels: NormPoolKernels,
    ) -> Any:
        dense = (dense_channels_last(g), dense_channels_last(x))
        given = (*dense, weight.contiguous(), bias.contiguous(), picked, mean, rstd)
        ctx.save_for_backward(*given)
        ctx.pool, ctx.kernels = pool, kernels
        return kernels.backward(*given, pool)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        v, v_weight, v_bias = cast("tuple[Tensor, Tensor, Tensor]", outputs)
        v = dense_channels_last(v)
        found = ctx.kernels.double_backward(v, v_weight.contiguous(), v_bias.contiguous(), *ctx.saved_tensors, ctx.pool)
        return (*found, None, None, None, None, None, None)
