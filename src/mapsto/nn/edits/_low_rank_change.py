"""A layer's weight and a change of low rank: ``W + α/r · B A``, which `lora` trains as it is and `dora` for the direction alone."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.edits._adapted_layer import AdaptedLayer, is_adaptable, is_adapted, layer_at

__all__ = ["TENSORS", "LowRankChange", "add_low_rank"]

TENSORS = ("lora_a", "lora_b")
"""Names of the two factors."""


class LowRankChange(AdaptedLayer):
    """A layer with ``W + α/r · B A`` in the place of W."""

    added: ClassVar[tuple[str, ...]] = TENSORS
    settings: ClassVar[tuple[str, ...]] = ("lora_scale",)
    lora_a: Tensor
    lora_b: Tensor
    lora_scale: float

    def adapted_weight(self) -> Tensor:
        """W', of W's shape."""
        change = self.lora_b @ self.lora_a.flatten(1)
        return self.weight + self.lora_scale * change.reshape(self.weight.shape)


def add_low_rank(module: nn.Module, path: str, *, rank: int, alpha: float, where: str) -> nn.Module:
    """Give the layer at `path` its A and B; the layer, whose class is the caller's to change.

    A is drawn from torch's global generator. Raises `DomainError` where the layer is not there or cannot be adapted.
    """
    layer = layer_at(module, path, where=where)
    if not is_adaptable(layer):
        raise DomainError(
            f"it is a {type(layer).__name__}{' that has adapters' if is_adapted(layer) else ''}",
            where=f"{where}: {path}",
            hint="adapters go with a plain nn.Linear or an nn.Conv2d without groups, once",
        )
    weight = cast("Tensor", layer.weight)
    a = weight.new_empty(rank, *weight.shape[1:])
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    layer.register_parameter("lora_a", nn.Parameter(a))
    layer.register_parameter("lora_b", nn.Parameter(weight.new_zeros(weight.shape[0], rank)))
    cast("Any", layer).lora_scale = alpha / rank
    return layer
