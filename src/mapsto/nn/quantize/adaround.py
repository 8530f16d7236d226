"""Layer by layer between a float network and its quantized form: what goes in, what should come out, and learned rounding.

``Ŵ = s · clamp(⌊W / s⌋ + h(V), lowest, highest)`` with ``h(V) = clamp(1.2 σ(V) − 0.1, 0, 1)``; V is trained so that the layer's output
stays the float one's, while ``λ Σ 1 − |2 h(V) − 1|^β`` with a falling β drives every h to 0 or 1 (Nagel et al., "Up or Down?
Adaptive Rounding for Post-Training Quantization", 2020).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mapsto.nn.edits.quantizers import Quantizer, quantized_weights
from mapsto.nn.network.call_sites import trace
from mapsto.nn.network.layer_calls import EndPass, run_watched

__all__ = [
    "LayerRounding",
    "QuantizedLayer",
    "captured",
    "hardened",
    "layer_output",
    "layer_runs",
    "opening",
    "quantized_layers",
    "rectified_layers",
    "regulariser",
    "rounded",
    "soft_weight",
]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_LOW, _HIGH = -0.1, 1.1


class QuantizedLayer(NamedTuple):
    """A convolution or linear layer whose weight is quantized."""

    path: str
    quantizer: Quantizer
    module: nn.Module
    """With `weight` and `bias`."""


def quantized_layers(module: nn.Module) -> list[QuantizedLayer]:
    """The layers of a quantized module that a forward hook can watch, in the order of their quantizers."""
    found: list[QuantizedLayer] = []
    for _, quantizer, _ in quantized_weights(module):
        layer = module.get_submodule(quantizer.path)
        if isinstance(layer, _LAYERS) and quantizer.function == "weight":
            found.append(QuantizedLayer(quantizer.path, quantizer, layer))
    return found


def captured(
    module: nn.Module, batch: Tensor, paths: Iterable[str], *, output: bool = False, runs: int | None = None
) -> dict[str, Tensor]:
    """Path → what goes into that layer (or comes out of it) for a batch, one call after another; none for one that does not run.

    With `runs` the pass ends once the layers have run so many times in all: what comes after them is not computed.
    """
    found: dict[str, list[Tensor]] = {}

    def keep(path: str, given: tuple[Any, ...], result: Any) -> None:
        found.setdefault(path, []).append((result if output else given[0]).detach().clone())
        if runs is not None and sum(map(len, found.values())) >= runs:
            raise EndPass

    run_watched(module, {path: module.get_submodule(path) for path in paths}, [batch], keep)
    return {path: torch.cat(parts) for path, parts in found.items()}


def layer_output(layer: nn.Module, x: Tensor, weight: Tensor, *, bias: bool = True) -> Tensor:
    """What a layer makes of `x` with another weight, with its bias or without."""
    tensors: Mapping[str, Tensor] = {"weight": weight}
    if not bias and cast("Any", layer).bias is not None:
        tensors = {**tensors, "bias": torch.zeros_like(cast("Tensor", layer.bias))}
    return cast("Tensor", torch.func.functional_call(layer, dict(tensors), (x,)))


def _steps(quantizer: Quantizer, weight: Tensor) -> Tensor:
    scale = torch.tensor(quantizer.scale, dtype=weight.dtype, device=weight.device)
    return scale.view([-1 if axis == quantizer.axis else 1 for axis in range(weight.ndim)])


def rounded(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """A weight rounded to the nearest of its quantizer's steps."""
    step = _steps(quantizer, weight)
    return (weight / step).round().clamp(quantizer.quant_min, quantizer.quant_max) * step


def rectified_sigmoid(v: Tensor) -> Tensor:
    """h(V), 0 to 1 and both reached.

    >>> rectified_sigmoid(torch.tensor([-9.0, 0.0, 9.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return (torch.sigmoid(v) * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def opening(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """The V with which the soft weight is the float one."""
    ratio = weight / _steps(quantizer, weight)
    rest = ((ratio - ratio.floor()) - _LOW) / (_HIGH - _LOW)
    return torch.logit(rest)


def soft_weight(weight: Tensor, v: Tensor, quantizer: Quantizer) -> Tensor:
    """Ŵ for h(V) between 0 and 1; gradients go to V."""
    step = _steps(quantizer, weight)
    codes = (weight / step).floor() + rectified_sigmoid(v)
    return codes.clamp(quantizer.quant_min, quantizer.quant_max) * step


def hardened(weight: Tensor, v: Tensor, quantizer: Quantizer) -> Tensor:
    """The weight rounded up where h(V) is at least a half and down elsewhere; on the quantizer's steps."""
    step = _steps(quantizer, weight)
    codes = (weight / step).floor() + (rectified_sigmoid(v) >= 0.5).to(weight.dtype)
    return codes.clamp(quantizer.quant_min, quantizer.quant_max) * step


def regulariser(v: Tensor, beta: float) -> Tensor:
    """``Σ 1 − |2 h(V) − 1|^β``: 0 where every h is 0 or 1."""
    return (1 - (2 * rectified_sigmoid(v) - 1).abs().pow(beta)).sum()


class LayerRounding:
    """One layer's V at work.

    Parameters
    ----------
    layer
        Its weight is replaced by `harden`.
    inputs, targets
        What goes into the quantized layer and what comes out of the float one, shapes (N, ...).
    rectified
        Whether outputs are compared behind a ReLU.
    learning_rate, regularisation, warmup, beta
        Of Adam; λ; the share of steps before its term sets in; β at first and at the end.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        inputs: Tensor,
        targets: Tensor,
        *,
        rectified: bool,
        learning_rate: float,
        regularisation: float,
        warmup: float,
        beta: tuple[float, float],
    ) -> None:
        self.inputs = inputs
        self._layer, self._rectified = layer, rectified
        self._regularisation, self._warmup, self._beta = regularisation, warmup, beta
        self._weight: Tensor = layer.module.get_parameter("weight")
        self._targets = targets.relu() if rectified else targets
        self._v = opening(self._weight.detach(), layer.quantizer).requires_grad_()
        self._optimizer = torch.optim.Adam([self._v], lr=learning_rate)

    def advance(self, chosen: Tensor, share: float) -> float:
        """One step on the samples at `chosen`, `share` of the way through; gives the squared error, summed over channels."""
        output = layer_output(self._layer.module, self.inputs[chosen], self.soft())
        output = output.relu() if self._rectified else output
        error = (output - self._targets[chosen]).square().sum(1).mean()
        loss = error
        if share >= self._warmup:
            first, last = self._beta
            beta = first + (last - first) * (share - self._warmup) / (1 - self._warmup)
            loss = error + self._regularisation * regulariser(self._v, beta)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(error.detach())

    def soft(self) -> Tensor:
        """The weight as V has it now, between two steps."""
        return soft_weight(self._weight.detach(), self._v, self._layer.quantizer)

    def harden(self) -> None:
        """Put the rounded weight into the layer."""
        with torch.no_grad():
            self._weight.copy_(hardened(self._weight, self._v, self._layer.quantizer))

    def saved(self) -> dict[str, Any]:
        """V and the optimiser's moments."""
        return {"v": self._v.detach(), **self._optimizer.state_dict()["state"].get(0, {})}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `saved` gave, if anything."""
        if not state:
            return
        with torch.no_grad():
            self._v.copy_(state["v"])
        whole = self._optimizer.state_dict()
        whole["state"] = {0: {name: tensor for name, tensor in state.items() if name != "v"}}
        self._optimizer.load_state_dict(whole)


def layer_runs(module: nn.Module, example: Tensor) -> Counter[str]:
    """Path of a layer → how often it runs in a forward pass."""
    return Counter(call.site.path for call in trace(module, example).calls if call.parameters)


def rectified_layers(module: nn.Module, example: Tensor) -> set[str]:
    """Paths of the layers whose output a ReLU alone takes."""
    graph = trace(module, example)
    consumers = graph.consumers()
    takers = {call.site.path: consumers.get(call.site, []) for call in graph.calls if call.parameters}
    return {path for path, calls in takers.items() if [call.site.function for call in calls] == ["relu"]}
