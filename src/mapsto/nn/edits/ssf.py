"""Scale and shift what layers and normalisations give, each channel by two learnt numbers.

``y' = γ · y + β`` with γ at 1 and β at 0, so that the output is at first what it was; as ``W' = γ W`` and ``b' = γ b + β`` it costs nothing
once it is merged (Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning", 2022). The tensors are
`ssf_scale` and `ssf_shift` beside the layer's own.
"""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import AdaptedLayer, become, is_adaptable, is_adapted, layer_at

__all__ = ["Ssf", "can_be_scaled"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


class Ssf(Edit):
    """Scales and shifts at layers and normalisations.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)).eval()
    >>> x = torch.ones(1, 1, 3, 3)
    >>> before = net(x)
    >>> torch.equal(Ssf(targets=("0", "1")).apply(net)(x), before)
    True
    """

    version: ClassVar[int] = 2

    targets: tuple[str, ...] = Field(min_length=1)
    """Paths of the layers and normalisations."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a part is not there or cannot be scaled."""
        for path in self.targets:
            layer = layer_at(module, path, where="ssf")
            if not can_be_scaled(layer):
                raise DomainError(
                    f"it is a {type(layer).__name__}",
                    where=f"ssf: {path}",
                    hint="scale and shift go with nn.Linear, nn.Conv2d, batch norms and layer norms over one dimension, once",
                )
            weight = layer.get_parameter("weight")
            layer.register_parameter("ssf_scale", nn.Parameter(weight.new_ones(weight.shape[0])))
            layer.register_parameter("ssf_shift", nn.Parameter(weight.new_zeros(weight.shape[0])))
            become(layer, _ScaledAndShifted)
        return module


class _ScaledAndShifted(AdaptedLayer):
    added: ClassVar[tuple[str, ...]] = ("ssf_scale", "ssf_shift")
    ssf_scale: Tensor
    ssf_shift: Tensor

    def adapted_weight(self) -> Tensor:
        """W', of W's shape."""
        return self.weight * self.ssf_scale.view(-1, *[1] * (self.weight.ndim - 1))

    def adapted_bias(self) -> Tensor:
        """b', (outputs,)."""
        return self.ssf_shift if self.bias is None else self.bias * self.ssf_scale + self.ssf_shift


def can_be_scaled(layer: nn.Module) -> bool:
    """Whether a layer's or a normalisation's output can be scaled and shifted by its own weight and bias."""
    if is_adaptable(layer, groups=True):
        return True
    if not isinstance(layer, _NORMS) or is_adapted(layer):
        return False
    weight, bias = cast("Tensor | None", layer.weight), cast("Tensor | None", layer.bias)
    return weight is not None and bias is not None and weight.ndim == 1
