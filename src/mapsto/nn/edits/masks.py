"""Zeros that stay zeros: a masked layer's weights that are 0 get no gradient, so that training moves the others only.

``y = f(x; w · [w ≠ 0])``, which is f(x; w) with a gradient of 0 where w is 0. The mask is the weight itself: nothing more is
stored, and a file holds the weight alone (Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit

__all__ = ["Masks", "is_maskable", "is_masked"]


class Masks(Edit):
    """Layers whose zeros stay; which weights are zero is in the tensors, and whoever makes the edit sets them.

    What changes a weight without regard to its gradient fills zeros: a learned update rule may. A layer that is masked stays so.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data = torch.tensor([[0.0, 2.0]])
    >>> Masks(layers=("0",)).apply(net)(torch.ones(1, 2)).sum().backward()
    >>> net[0].weight.grad.tolist(), sorted(net.state_dict())
    ([[0.0, 1.0]], ['0.weight'])
    """

    layers: tuple[str, ...] = Field(min_length=1)
    """Paths of the layers."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a layer is not there or cannot be masked."""
        for path in self.layers:
            try:
                layer = module.get_submodule(path)
            except AttributeError as error:
                raise DomainError(
                    str(error), where=f"masks: {path}", hint="edits replay in the order they were made"
                ) from error
            if is_masked(layer):
                continue
            if not is_maskable(layer):
                raise DomainError(
                    f"it is a {type(layer).__name__}",
                    where=f"masks: {path}",
                    hint="masks go with a plain linear layer or convolution; merge adapters first",
                )
            layer.__class__ = _KINDS[type(layer)]  # its path and its tensors keep their names
        return module


class _Masked:
    """Marks a layer whose zeros stay."""

    weight: Tensor

    def masked_weight(self) -> Tensor:
        if not torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self.weight
        return self.weight * (self.weight.detach() != 0)


class _MaskedLinear(_Masked, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.masked_weight(), self.bias)


class _MaskedConv1d(_Masked, nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.masked_weight(), self.bias)


class _MaskedConv2d(_Masked, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.masked_weight(), self.bias)


class _MaskedConv3d(_Masked, nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.masked_weight(), self.bias)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _MaskedLinear,
    nn.Conv1d: _MaskedConv1d,
    nn.Conv2d: _MaskedConv2d,
    nn.Conv3d: _MaskedConv3d,
}


def is_maskable(layer: nn.Module) -> bool:
    """Whether a layer can be masked: a plain linear layer or convolution, or one that is masked already."""
    return type(layer) in _KINDS or is_masked(layer)


def is_masked(layer: nn.Module) -> bool:
    """Whether a layer's zeros stay."""
    return isinstance(layer, _Masked)
