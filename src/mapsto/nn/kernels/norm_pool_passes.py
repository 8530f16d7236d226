"""The passes of batch norm, ReLU and max-pooling in one: what a kernel for them gives, and the same as PyTorch operations."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

__all__ = ["PLAIN", "NormPoolKernels"]


class NormPoolKernels(Protocol):
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


class PlainKernels:
    """The same as PyTorch operations: `picked` holds the places of the winners in their images, int64, and is empty without pooling."""

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


PLAIN = PlainKernels()


def _map(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def _gather(dense: Tensor, places: Tensor) -> Tensor:
    return dense.flatten(2).gather(2, places.flatten(2)).view(places.shape)
