"""Layers whose weight and bias are changed by a few parameters of their own, and can be merged: what the edits of adapters share.

A layer keeps its path and its tensors' names: only its class changes, to one that computes with ``W' = g(W, θ)`` and ``b' = h(b, θ)``
in the place of W and b. Merging writes W' and b' and drops θ.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError

__all__ = [
    "AdaptedLayer",
    "adapted_layers",
    "adapter_parameters",
    "become",
    "is_adaptable",
    "is_adapted",
    "layer_at",
    "merge",
    "require_none",
    "tuned_parts",
    "without_adapters",
]


class AdaptedLayer:
    """Marks a layer with adapters; a kind of adapters is a subclass that says what weight and bias become."""

    added: ClassVar[tuple[str, ...]]
    """Names of the tensors that the layer has got, which are what is trained of it."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes beside them."""
    plain: ClassVar[type[nn.Module]]
    """The layer's class without adapters."""
    weight: Tensor
    bias: Tensor | None

    @property
    def mapsto_trained(self) -> tuple[str, ...]:
        """See `adapter_parameters`."""
        return self.added

    def adapted_weight(self) -> Tensor:
        """W', of W's shape."""
        return self.weight

    def adapted_bias(self) -> Tensor | None:
        """b', of shape (outputs,); None for none."""
        return self.bias


def become(layer: nn.Module, kind: type[AdaptedLayer]) -> None:
    """Another class for a layer that is held in places we do not know, so that no path and no tensor changes its name."""
    layer.__class__ = _adapted(kind, type(layer))


@cache
def _adapted(kind: type[AdaptedLayer], plain: type[nn.Module]) -> type[nn.Module]:
    own: dict[type[nn.Module], Any] = {nn.Linear: _linear, nn.Conv2d: _convolution}
    forward = own.get(plain) or _substituted(plain)
    return type(f"{kind.__name__}{plain.__name__}", (kind, plain), {"plain": plain, "forward": forward})


def _linear(self: Any, input: Tensor) -> Tensor:
    return nn.functional.linear(input, self.adapted_weight(), self.adapted_bias())


def _convolution(self: Any, input: Tensor) -> Tensor:
    return self._conv_forward(input, self.adapted_weight(), self.adapted_bias())


def _substituted(plain: type[nn.Module]) -> Any:
    """The forward of a class that reads ``self.weight`` and ``self.bias``, whatever else it does."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        new = {"weight": self.adapted_weight(), "bias": self.adapted_bias()}
        self.__dict__.update(new)  # an attribute of the instance is found before a parameter
        try:
            return plain.forward(self, *args, **kwargs)
        finally:
            for name in new:
                del self.__dict__[name]

    return forward


def is_adaptable(layer: nn.Module, *, groups: bool = False) -> bool:
    """Whether a layer's weight can be changed: a plain linear layer, or a convolution, without groups unless `groups`.

    Convolutions of other libraries are, such as those that pad by themselves; layers that an edit has changed are not.
    """
    if type(layer) is nn.Linear:
        return True
    if not isinstance(layer, nn.Conv2d) or type(layer).__module__.startswith("mapsto."):
        return False
    return groups or layer.groups == 1


def is_adapted(layer: nn.Module) -> bool:
    """Whether a layer has adapters that can be merged."""
    return isinstance(layer, AdaptedLayer)


def adapted_layers(module: nn.Module) -> Iterator[str]:
    """The paths of the layers that have adapters which can be merged."""
    return (path for path, layer in module.named_modules() if is_adapted(layer))


def tuned_parts(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Path of each part that an edit has given parameters to train → their names there."""
    found = {path: getattr(part, "mapsto_trained", ()) for path, part in module.named_modules()}
    return {path: names for path, names in found.items() if names}


def adapter_parameters(module: nn.Module) -> list[str]:
    """Names of the parameters that are trained where all else is frozen: those that adapters have added, and what `adapt.bitfit` marked."""
    found = {f"{path}.{name}" if path else name for path, names in tuned_parts(module).items() for name in names}
    return [name for name, _ in module.named_parameters() if name in found]


def layer_at(module: nn.Module, path: str, *, where: str) -> nn.Module:
    """The part of that path. Raises `DomainError` where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise DomainError(
            str(error), where=f"{where}: {path}", hint="edits replay in the order they were made"
        ) from error


def merge(layer: nn.Module) -> None:
    """Make a layer with adapters a plain one that computes the same; another stays as it is.

    Weight and bias are new parameters: who shared the old ones with the layer, such as an embedding with what reads it out, keeps these.
    """
    if not isinstance(layer, AdaptedLayer):
        return
    kind = type(layer)
    with torch.no_grad():
        changes = (("weight", layer.weight, layer.adapted_weight()), ("bias", layer.bias, layer.adapted_bias()))
    for name, before, after in changes:
        if after is not None and after is not before:
            learns = (layer.weight if before is None else before).requires_grad
            setattr(layer, name, nn.Parameter(after.detach().clone(), learns))
    for name in (*kind.added, *kind.settings):
        delattr(layer, name)
    cast("nn.Module", layer).__class__ = kind.plain


def without_adapters(module: nn.Module) -> nn.Module:
    """The module, or a copy of it with its adapters merged."""
    paths = list(adapted_layers(module))
    if paths:
        module = copy.deepcopy(module)
        for path in paths:
            merge(module.get_submodule(path))
    return module


def require_none(module: nn.Module, *, where: str, besides: Collection[str] = ()) -> None:
    """Raises `DomainError` where layers have adapters that could be merged, `besides` those of these names of tensors."""
    found = [
        path
        for path in adapted_layers(module)
        if not set(cast("AdaptedLayer", module.get_submodule(path)).added) <= set(besides)
    ]
    if found:
        raise DomainError(
            f"{len(found)} layers have adapters ('{found[0]}' …), which a change of their weights would miss",
            where=where,
            hint="put an adapt.merge step before",
        )
