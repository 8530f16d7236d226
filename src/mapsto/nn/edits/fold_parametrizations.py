"""Replace a weight that is computed anew in each forward pass by its value: weight, spectral and orthogonal norms, any parametrization.

``w = g v / ‖v‖`` (Salimans and Kingma, "Weight Normalization", 2016), ``w = v / σ(v)`` (Miyato et al., "Spectral Normalization for
Generative Adversarial Networks", 2018), ``w = exp(A)`` with A skew (Lezcano-Casado and Martínez-Rubio, "Cheap Orthogonal Constraints in
Neural Networks", 2019): they shape training; afterwards the weight itself is smaller, and pruning and quantizing can follow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mapsto.kinds import Edit

__all__ = ["FoldParametrizations", "folded_state", "parametrized"]


class FoldParametrizations(Edit):
    """Each weight is a plain parameter from then on; the tensors that it was computed from are dropped.

    >>> net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    >>> x = torch.rand(4, 3)
    >>> before = net(x)
    >>> folded = FoldParametrizations(weights=("0.weight",)).apply(net)
    >>> torch.allclose(folded(x), before, atol=1e-6), sorted(folded.state_dict())
    (True, ['0.bias', '0.weight'])
    """

    weights: tuple[str, ...] = Field(min_length=1)
    """Names of the weights, as ``conv.weight``; those that are plain already stay as they are."""

    def apply(self, module: nn.Module) -> nn.Module:
        there = parametrized(module)
        was_training = [(part, part.training) for part in module.modules()]
        module.eval()  # a spectral norm in training changes with every look at it
        for name in self.weights:
            if name in there:
                _fold(module, name, there[name])
        for part, training in was_training:
            part.training = training
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        gone = any(name in sources(weight) or name.startswith(_prefix(weight)) for weight in self.weights)
        return None if gone else tensor


def parametrized(module: nn.Module) -> dict[str, Any]:
    """The weights that are computed in each forward pass: name → the hook that does, None for a parametrization.

    >>> list(parametrized(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))))
    ['weight']
    """
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        if isinstance(part, parametrize.ParametrizationList):
            continue
        place = f"{path}." if path else ""
        if parametrize.is_parametrized(part):
            found |= {f"{place}{name}": None for name in cast("nn.ModuleDict", part.parametrizations)}
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, (WeightNorm, SpectralNorm)):
                found[f"{place}{hook.name}"] = hook
    return found


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of `module` by name as after folding, without a change of it; it should be in evaluation mode."""
    there = parametrized(module)
    kept: Mapping[str, Tensor] = module.state_dict()
    dropped = {source for name in there for source in sources(name)}
    prefixes = tuple(_prefix(name) for name in there)
    state = {
        name: tensor
        for name, tensor in kept.items()
        if name not in dropped and not name.startswith(prefixes or ("\0",))
    }
    with torch.no_grad():
        return {**state, **{name: _value(module, name, hook).detach() for name, hook in there.items()}}


def sources(weight: str) -> tuple[str, ...]:
    """Names of the tensors that torch's older hooks compute a weight from."""
    return tuple(f"{weight}_{letter}" for letter in ("g", "v", "orig", "u"))


def _prefix(weight: str) -> str:
    path, _, name = weight.rpartition(".")
    return f"{path}{'.' if path else ''}parametrizations.{name}."


def _place(module: nn.Module, weight: str) -> tuple[nn.Module, str]:
    path, _, name = weight.rpartition(".")
    return module.get_submodule(path), name


def _value(module: nn.Module, weight: str, hook: Any) -> Tensor:
    part, name = _place(module, weight)
    if isinstance(hook, SpectralNorm):
        return hook.compute_weight(part, do_power_iteration=False)
    return hook.compute_weight(part) if isinstance(hook, WeightNorm) else getattr(part, name)


def _fold(module: nn.Module, weight: str, hook: Any) -> None:
    part, name = _place(module, weight)
    if isinstance(hook, WeightNorm):
        remove_weight_norm(part, name)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(part, name)
    else:
        parametrize.remove_parametrizations(part, name, leave_parametrized=True)
        value: Tensor = getattr(part, name)
        if not isinstance(value, nn.Parameter):  # what torch leaves of several frozen tensors
            delattr(part, name)
            setattr(part, name, nn.Parameter(value.detach(), requires_grad=False))
