"""Maps compared in pairs: every map of one set added to every map of another, normalised, pooled and rectified in one.

``y = relu(maxpool₂(γ (x − μ) r + β))`` for each sum ``x = a_k + b_q``, with its own mean μ and ``r = 1 / √(σ² + ε)`` over all its values,
as group norm of one group has them (Wu and He, "Group Normalization", 2018). There are as many sums as pairs, and PyTorch's own
operations write each of them to memory several times; the kernel (``native/csrc/pair_norm_pool.cpp``) writes none.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import group_norm, max_pool2d

from mapsto.nn.kernels.compiled import compiled_kernels, is_supported
from mapsto.nn.kernels.memory_layout import channels_last

__all__ = ["pair_norm_relu_pool"]


def pair_norm_relu_pool(
    first: Tensor, second: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, *, compiled: bool | None = None
) -> Tensor:
    """The ReLU of the max-pooling by 2 × 2 of the group norm, of one group, of every sum of two maps; differentiable once.

    Parameters
    ----------
    first
        Shape (B, K, C, H, W).
    second
        Shape (B, Q, C, H, W): B, C, H and W as of `first`.
    weight, bias
        γ and β, shape (C,).
    eps
        Added to the variance.
    compiled
        Whether the compiled kernels are used; None for where they can be had and apply.

    Returns
    -------
    Tensor
        Shape (B, Q, K, C, H // 2, W // 2); a side of 1 stays.

    >>> one, other = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 2, 2), torch.zeros(1, 3, 1, 2, 2)
    >>> pair_norm_relu_pool(one, other, torch.ones(1), torch.zeros(1)).flatten().round(decimals=3)
    tensor([1.3420, 1.3420, 1.3420])
    """
    (tasks, ways, *shape), queries = first.shape, second.shape[1]
    fits = min(shape[1:]) > 1 and first.numel() and second.numel() and first.dtype == second.dtype == weight.dtype
    if compiled is not False and fits and is_supported(first) and compiled_kernels():
        found = cast(
            "Tensor", _PairNormReluPool.apply(first.flatten(0, 1), second.flatten(0, 1), weight, bias, tasks, eps)
        )
        return found.unflatten(0, (tasks, queries, ways))
    pairs = (first.unsqueeze(1) + second.unsqueeze(2)).flatten(0, 2)
    window = (min(2, shape[1]), min(2, shape[2]))
    # The ReLU after the pooling gives the same from a quarter of the elements.
    return max_pool2d(group_norm(pairs, 1, weight, bias, eps), window).relu().unflatten(0, (tasks, queries, ways))


class _PairNormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, weight: Tensor, bias: Tensor, tasks: int, eps: float
    ) -> Tensor:
        given = (channels_last(first), channels_last(second), weight.contiguous(), bias.contiguous())
        y, *kept = torch.ops.mapsto_pair_norm_pool.forward(*given, tasks, eps)
        ctx.save_for_backward(*given, *kept)
        ctx.tasks = tasks
        return cast("Tensor", y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = torch.ops.mapsto_pair_norm_pool.backward(channels_last(outputs[0]), *ctx.saved_tensors, ctx.tasks)
        return (*found, None, None)
