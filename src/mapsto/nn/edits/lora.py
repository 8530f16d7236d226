"""Add low-rank adapters to linear layers and convolutions: few new parameters that change the layer's weight.

``W' = W + α/r · B A`` with A of shape (r, in, ...) drawn as a layer's weight is and B (out, r) at 0, so that the output is at first what it
was (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022). The tensors are `lora_a` and `lora_b` beside the layer's own,
which keep their names.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import become
from mapsto.nn.edits._low_rank_change import LowRankChange, add_low_rank

__all__ = ["Lora"]


class Lora(Edit):
    """Adapters at layers.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 2, bias=False))
    >>> x = torch.ones(1, 3)
    >>> before = net(x)
    >>> after = Lora(targets=("0",), rank=1, alpha=1.0).apply(net)(x)
    >>> torch.equal(before, after), {name: tuple(tensor.shape) for name, tensor in net.named_parameters()}
    (True, {'0.weight': (2, 3), '0.lora_a': (1, 3), '0.lora_b': (2, 1)})
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
            layer = add_low_rank(module, path, rank=self.rank, alpha=self.alpha, where="lora")
            become(layer, LowRankChange)
        return module
