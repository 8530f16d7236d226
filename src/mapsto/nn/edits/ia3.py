"""Scale what layers give, or what they are given, by a learnt number for each channel.

``y' = s · (W x + b)`` or ``y' = W (s · x) + b`` with s at 1, so that the output is at first what it was (Liu et al., "Few-Shot
Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", 2022: IA³). The tensor is `ia3_scale` beside the
layer's own.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import AdaptedLayer, become, is_adaptable, layer_at

__all__ = ["Ia3"]


class Ia3(Edit):
    """Scales at layers.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 2))
    >>> _ = Ia3(outputs=("0",)).apply(net)
    >>> {name: tuple(tensor.shape) for name, tensor in net.named_parameters()}
    {'0.weight': (2, 3), '0.bias': (2,), '0.ia3_scale': (2,)}
    """

    version: ClassVar[int] = 2

    outputs: tuple[str, ...] = ()
    """Paths of the layers whose outputs are scaled: keys and values in the paper."""
    inputs: tuple[str, ...] = ()
    """Paths of the layers whose inputs are: the second layers of the perceptrons in the paper; none with groups."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a layer is not there or cannot be scaled."""
        for paths, kind, groups in ((self.outputs, _ScaledOutputs, True), (self.inputs, _ScaledInputs, False)):
            for path in paths:
                layer = layer_at(module, path, where="ia3")
                if not is_adaptable(layer, groups=groups):
                    raise DomainError(
                        f"it is a {type(layer).__name__}",
                        where=f"ia3: {path}",
                        hint="scales go with a plain nn.Linear or an nn.Conv2d, once; those of inputs with one without groups",
                    )
                weight = layer.get_parameter("weight")
                layer.register_parameter("ia3_scale", nn.Parameter(weight.new_ones(weight.shape[kind.dim])))
                become(layer, kind)
        return module


class _Scaled(AdaptedLayer):
    added: ClassVar[tuple[str, ...]] = ("ia3_scale",)
    dim: ClassVar[int]
    """Of the weight, that the scale runs along."""
    ia3_scale: Tensor

    def adapted_weight(self) -> Tensor:
        """W', of W's shape."""
        shape = [1] * self.weight.ndim
        shape[self.dim] = -1
        return self.weight * self.ia3_scale.view(shape)


class _ScaledInputs(_Scaled):
    dim = 1


class _ScaledOutputs(_Scaled):
    dim = 0

    def adapted_bias(self) -> Tensor | None:
        """b', (outputs,)."""
        return self.bias * self.ia3_scale if self.bias is not None else None
