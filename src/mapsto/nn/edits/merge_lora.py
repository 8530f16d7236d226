"""Merge low-rank adapters into the layers that have them: the weight becomes W + α/r · B A, the adapters go.

The output stays the same, and the network is as large and as fast as before it had adapters (Hu et al., "LoRA: Low-Rank Adaptation of
Large Language Models", 2022, section 4.1).
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import is_adapted, merge

__all__ = ["MergeLora"]


class MergeLora(Edit):
    """No more adapters at layers.

    >>> import torch
    >>> from mapsto.nn.edits.lora import Lora
    >>> net = Lora(targets=("0",), rank=1, alpha=1.0).apply(nn.Sequential(nn.Linear(3, 2, bias=False)))
    >>> _ = nn.init.ones_(net[0].lora_b)
    >>> before = net(torch.ones(1, 3))
    >>> torch.allclose(MergeLora(targets=("0",)).apply(net)(torch.ones(1, 3)), before), sorted(net.state_dict())
    (True, ['0.weight'])
    """

    targets: tuple[str, ...] = Field(min_length=1)
    """Paths of the layers."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a layer has no adapters."""
        for path in self.targets:
            layer = dict(module.named_modules()).get(path)
            if layer is None or not is_adapted(layer):
                raise DomainError(
                    "it has no adapters", where=f"merge_lora: {path}", hint="edits replay in the order they were made"
                )
            merge(layer)
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        path, _, own = name.rpartition(".")
        return None if path in self.targets and own in ("lora_a", "lora_b") else tensor
