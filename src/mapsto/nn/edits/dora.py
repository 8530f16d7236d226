"""Add adapters that change a layer's weight in direction by a low rank, and in magnitude by a number for each output.

``W' = m · V / ‖V‖`` with ``V = W + α/r · B A``, the norm and m for each output; m begins as ‖W‖ and B at 0, so that the output is at first
what it was. The norm is taken as a constant in the gradient, as section 4.3 says (Liu et al., "DoRA: Weight-Decomposed Low-Rank
Adaptation", 2024). The tensors are `lora_a`, `lora_b` and `dora_magnitude` beside the layer's own.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import become
from mapsto.nn.edits._low_rank_change import TENSORS, LowRankChange, add_low_rank

__all__ = ["Dora"]


class Dora(Edit):
    """Adapters at layers.

    >>> net = nn.Sequential(nn.Linear(3, 2, bias=False))
    >>> x = torch.ones(1, 3)
    >>> before = net(x)
    >>> after = Dora(targets=("0",), rank=1, alpha=1.0).apply(net)(x)
    >>> torch.equal(before, after), torch.equal(net[0].dora_magnitude, net[0].weight.norm(dim=1))
    (True, True)
    """

    version: ClassVar[int] = 2

    targets: tuple[str, ...] = Field(min_length=1)
    """Paths of the layers."""
    rank: int = Field(ge=1)
    """r, the rank of the change."""
    alpha: float = Field(gt=0)
    """α, which over r scales the change."""

    def apply(self, module: nn.Module) -> nn.Module:
        """A is drawn from torch's global generator. Raises `DomainError` where a layer is not there or cannot be adapted."""
        for path in self.targets:
            layer = add_low_rank(module, path, rank=self.rank, alpha=self.alpha, where="dora")
            magnitude = _norms(cast("Tensor", layer.weight).detach())
            layer.register_parameter("dora_magnitude", nn.Parameter(magnitude))
            become(layer, _Decomposed)
        return module


class _Decomposed(LowRankChange):
    added: ClassVar[tuple[str, ...]] = (*TENSORS, "dora_magnitude")
    dora_magnitude: Tensor

    def adapted_weight(self) -> Tensor:
        """W', of W's shape."""
        direction = super().adapted_weight()
        gain = self.dora_magnitude / _norms(direction.detach())
        return direction * gain.view(-1, *[1] * (direction.ndim - 1))


def _norms(weight: Tensor) -> Tensor:
    """The Euclidean norm of each output's weights, (outputs,), no smaller than what can be divided by."""
    return weight.flatten(1).norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
