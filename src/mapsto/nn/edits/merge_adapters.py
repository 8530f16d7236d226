"""Merge adapters into the layers that have them: weight and bias become what the layer computed with, the adapters go.

``W ← W'``, ``b ← b'`` of `lora`, `dora`, `ia3` and `ssf`, the output the same (Hu et al., "LoRA: Low-Rank Adaptation of Large Language
Models", 2022, section 4.1); the marks of `bitfit` go too.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import is_adapted, layer_at, merge
from mapsto.nn.edits.bitfit import unmark

__all__ = ["MergeAdapters"]

_ADDED = ("lora_a", "lora_b", "dora_magnitude", "ia3_scale", "ssf_scale", "ssf_shift")


class MergeAdapters(Edit):
    """No more adapters and marks at layers.

    >>> import torch
    >>> from mapsto.nn.edits.ssf import Ssf
    >>> net = Ssf(targets=("0",)).apply(nn.Sequential(nn.Linear(3, 2, bias=False)))
    >>> _ = nn.init.ones_(net[0].ssf_shift)
    >>> before = net(torch.ones(1, 3))
    >>> torch.allclose(MergeAdapters(targets=("0",)).apply(net)(torch.ones(1, 3)), before), sorted(net.state_dict())
    (True, ['0.bias', '0.weight'])
    """

    targets: tuple[str, ...] = Field(min_length=1)
    """Paths of the layers."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a layer has neither adapters nor marks."""
        for path in self.targets:
            layer = layer_at(module, path, where="merge_adapters")
            if is_adapted(layer):
                merge(layer)
            elif not unmark(layer):
                raise DomainError(
                    "it has no adapters",
                    where=f"merge_adapters: {path}",
                    hint="edits replay in the order they were made",
                )
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        path, _, own = name.rpartition(".")
        return None if path in self.targets and own in _ADDED else tensor
