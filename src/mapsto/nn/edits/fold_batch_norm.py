"""Fold batch normalisation into the convolution or linear layer before it: one operation instead of two, the same output.

``w' = w · γ / sqrt(σ² + ε)`` and ``b' = (b − μ) · γ / sqrt(σ² + ε) + β``, per output channel (Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import require_none
from mapsto.nn.network.call_sites import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FoldBatchNorm"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class FoldBatchNorm(Edit):
    """Each batch norm's tensors are dropped, an identity takes its place, and its layer has a bias from then on.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)).eval()
    >>> x = torch.rand(4, 1, 5, 5)
    >>> before = net(x)
    >>> folded = FoldBatchNorm(pairs=(("0", "1"),)).apply(net)
    >>> torch.allclose(folded(x), before, atol=1e-6), sorted(folded.state_dict())
    (True, ['0.bias', '0.weight'])
    """

    pairs: tuple[tuple[str, str], ...] = Field(min_length=1)
    """(path of the layer, path of the batch norm that alone takes its output), in any order."""

    def apply(self, module: nn.Module) -> nn.Module:
        require_none(module, where="fold_batch_norm")
        for layer_path, norm_path in self.pairs:
            layer, norm = module.get_submodule(layer_path), module.get_submodule(norm_path)
            if not isinstance(layer, _LAYERS) or not is_foldable(norm):
                raise DomainError(
                    f"cannot fold {type(norm).__name__} '{norm_path}' into {type(layer).__name__} '{layer_path}'",
                    where="fold_batch_norm",
                    hint="a pair is a convolution or linear layer and a batch norm with running statistics",
                )
            _fold(layer, cast("Any", norm))
            parent, _, name = norm_path.rpartition(".")
            setattr(module.get_submodule(parent), name, nn.Identity())
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        folded = {norm for _, norm in self.pairs}
        return None if name.rpartition(".")[0] in folded else tensor


def is_foldable(module: nn.Module) -> bool:
    """Whether a module is a batch norm whose statistics are fixed at inference."""
    return isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and module.running_mean is not None


def _fold(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear, norm: nn.BatchNorm2d) -> None:
    mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    with torch.no_grad():
        gain = torch.rsqrt(variance.double() + norm.eps)
        gain = gain * norm.weight.double() if norm.affine else gain
        shift = norm.bias.double() if norm.affine else torch.zeros_like(gain)
        bias = layer.bias.double() if layer.bias is not None else torch.zeros_like(gain)
        weight = layer.weight
        weight.copy_(weight.double() * gain.view(-1, *[1] * (weight.ndim - 1)))
        layer.bias = nn.Parameter(((bias - mean.double()) * gain + shift).to(weight.dtype), weight.requires_grad)


def foldable_pairs(module: nn.Module, calls: Trace) -> tuple[tuple[str, str], ...]:
    """The pairs that `FoldBatchNorm` can fold, read from a trace: each layer runs once and feeds its batch norm alone."""
    return tuple(_pairs(module, calls))


def _pairs(module: nn.Module, calls: Trace) -> Iterator[tuple[str, str]]:
    modules = dict(module.named_modules())
    runs = [call.site.path for call in calls.calls]
    consumers = calls.consumers()
    for call in calls.calls:
        path, source = call.site.path, call.sources[0]
        if not is_foldable(modules[path]) or not isinstance(modules.get(source.path), _LAYERS):
            continue
        once = runs.count(path) == 1 and runs.count(source.path) == 1
        if once and len(consumers[source]) == 1 and source not in calls.outputs:
            yield source.path, path
