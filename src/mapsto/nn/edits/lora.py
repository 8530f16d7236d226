"""Add low-rank adapters to linear layers and convolutions: few new parameters that change the layer's weight.

``W' = W + α/r · B A`` with A of shape (r, in, ...) drawn as a layer's weight is and B (out, r) at 0, so that the output is at first what it
was (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022). The tensors are `lora_a` and `lora_b` beside the layer's own,
which keep their names.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit

__all__ = ["Lora", "adapted_layers", "is_adaptable", "merge", "require_none", "without_adapters"]


class Lora(Edit):
    """Adapters at layers.

    >>> net = nn.Sequential(nn.Linear(3, 2, bias=False))
    >>> x = torch.ones(1, 3)
    >>> before = net(x)
    >>> after = Lora(targets=("0",), rank=1, alpha=1.0).apply(net)(x)
    >>> torch.equal(before, after), {name: tuple(tensor.shape) for name, tensor in net.named_parameters()}
    (True, {'0.weight': (2, 3), '0.lora_a': (1, 3), '0.lora_b': (2, 1)})
    """

    targets: tuple[str, ...] = Field(min_length=1)
    """Paths of the layers."""
    rank: int = Field(ge=1)
    """r, the rank of the change."""
    alpha: float = Field(gt=0)
    """α, which over r scales the change."""

    def apply(self, module: nn.Module) -> nn.Module:
        """A is drawn from torch's global generator. Raises `DomainError` where a layer is not there or cannot be adapted."""
        for path in self.targets:
            try:
                layer = module.get_submodule(path)
            except AttributeError as error:
                raise DomainError(
                    str(error), where=f"lora: {path}", hint="edits replay in the order they were made"
                ) from error
            if not is_adaptable(layer):
                raise DomainError(
                    f"it is a {type(layer).__name__}{' that has adapters' if is_adapted(layer) else ''}",
                    where=f"lora: {path}",
                    hint="adapters go with a plain nn.Linear or an nn.Conv2d without groups, once",
                )
            weight = cast("Tensor", layer.weight)
            a = weight.new_empty(self.rank, *weight.shape[1:])
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
            layer.register_parameter("lora_a", nn.Parameter(a))
            layer.register_parameter("lora_b", nn.Parameter(weight.new_zeros(weight.shape[0], self.rank)))
            layer.lora_scale = self.alpha / self.rank  # type: ignore[assignment]
            _become(layer, _LoraLinear if isinstance(layer, nn.Linear) else _LoraConv2d)
        return module


class _Adapted:
    """Marks a layer with adapters."""

    weight: Tensor
    lora_a: Tensor
    lora_b: Tensor
    lora_scale: float

    def adapted_weight(self) -> Tensor:
        """W', of W's shape."""
        change = self.lora_b @ self.lora_a.flatten(1)
        return self.weight + self.lora_scale * change.reshape(self.weight.shape)


class _LoraLinear(_Adapted, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.adapted_weight(), self.bias)


class _LoraConv2d(_Adapted, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.adapted_weight(), self.bias)


def is_adaptable(layer: nn.Module) -> bool:
    """Whether a layer can have adapters: a plain linear layer, or a convolution without groups."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def is_adapted(layer: nn.Module) -> bool:
    """Whether a layer has adapters."""
    return isinstance(layer, _Adapted)


def adapted_layers(module: nn.Module) -> Iterator[str]:
    """The paths of the layers that have adapters."""
    return (path for path, layer in module.named_modules() if is_adapted(layer))


def merge(layer: nn.Module) -> None:
    """Make a layer with adapters a plain one that computes the same."""
    if isinstance(layer, (_LoraLinear, _LoraConv2d)):
        with torch.no_grad():
            layer.weight.copy_(layer.adapted_weight())
        plain = nn.Linear if isinstance(layer, _LoraLinear) else nn.Conv2d
        del layer.lora_a, layer.lora_b, layer.lora_scale
        _become(layer, plain)


def _become(layer: nn.Module, kind: type[nn.Module]) -> None:
    """Another class for a layer that is held in places we do not know, so that no path and no tensor changes its name."""
    layer.__class__ = kind


def without_adapters(module: nn.Module) -> nn.Module:
    """The module, or a copy of it with its adapters merged."""
    paths = list(adapted_layers(module))
    if paths:
        module = copy.deepcopy(module)
        for path in paths:
            merge(module.get_submodule(path))
    return module


def require_none(module: nn.Module, *, where: str) -> None:
    """Raises `DomainError` where a module has adapters."""
    found = list(adapted_layers(module))
    if found:
        raise DomainError(
            f"{len(found)} layers have adapters ('{found[0]}' …), which a change of their weights would miss",
            where=where,
            hint="put an adapt.merge_lora step before",
        )
