"""Scales and zero points: of activations from their range, of weights from their values, of biases from both."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.edits.quantizers import Quantizer
from mapsto.nn.network.call_sites import Site
from mapsto.nn.quantize.observers import Observer

__all__ = ["activation_quantizer", "bias_quantizer", "is_depthwise", "site_of", "weight_quantizer"]


def activation_quantizer(
    site: Site, low: float, high: float, *, bits: int, signed: bool = False, rectified: bool = False
) -> Quantizer:
    """A per-tensor asymmetric quantizer that covers low to high, and 0 exactly."""
    levels = 2**bits - 1
    lowest = -(2 ** (bits - 1)) if signed else 0
    low, high = (0.0 if rectified else min(low, 0.0)), max(high, 0.0)
    span = high - low or 1.0
    scale = _float32_below(span / levels)
    zero_point = lowest if rectified else lowest + min(levels, max(0, round(-low / scale)))
    return Quantizer(
        path=site.path,
        function=site.function,
        call=site.call,
        bits=bits,
        scale=(scale,),
        zero_point=(zero_point,),
        quant_min=lowest,
        quant_max=lowest + levels,
    )


def _float32_below(value: float) -> float:
    """The nearest float32 that is not above: a clamp at 6 is absorbed only if the highest code stays within 6."""
    single = torch.tensor(value, dtype=torch.float32)
    if float(single) > value:
        single = torch.nextafter(single, torch.tensor(0.0))
    return float(single)


def weight_quantizer(
    name: str,
    weight: Tensor,
    *,
    axis: int,
    bits: int,
    reduce_range: bool,
    observer: Observer,
    floor: float = 1 / 1024,
) -> Quantizer:
    """A symmetric quantizer with one scale for each index of `axis`.

    With `reduce_range` one of 8 bits is left unused, so that pairs of products fit 16 bits on CPUs without VNNI. `observer` "mse"
    picks for each channel the clipping of least squared error. No channel's limit is below `floor` of the greatest: a smaller step
    would overflow a runtime's int32 bias. Raises `DomainError` for a weight that is not finite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise DomainError("the weight is not finite (NaN or infinity)", where=name, hint="train the network again")
    highest = 2 ** (min(bits, 7 if reduce_range else 8) - 1) - 1
    rows = weight.detach().double().movedim(axis, 0).flatten(1)
    limits = rows.abs().amax(1)
    if observer == "mse":
        limits = _least_error(rows, limits, highest)
    limits = limits.clamp_min(float(limits.max()) * floor)
    limits = torch.where(limits > 0, limits, 1.0)
    scale = (limits / highest).float()
    site = site_of(name)
    return Quantizer(
        path=site.path,
        function=site.function,
        weight=True,
        scheme="symmetric",
        bits=bits,
        scale=tuple(scale.tolist()),
        zero_point=(0,) * len(scale),
        axis=axis,
        quant_min=-highest - 1,
        quant_max=highest,
    )


def bias_quantizer(name: str, weight: Quantizer, source: Quantizer) -> Quantizer:
    """A bias in units of the integer accumulator: the input's step times the weight's."""
    site = site_of(name)
    return Quantizer(
        path=site.path,
        function=site.function,
        weight=True,
        scheme="symmetric",
        bits=32,
        scale=tuple((torch.tensor(weight.scale) * source.scale[0]).tolist()),
        zero_point=(0,) * len(weight.scale),
        axis=0,
        quant_min=-(2**31),
        quant_max=2**31 - 1,
    )


def is_depthwise(module: nn.Module, parameter: str) -> bool:
    """Whether it is the weight of a convolution of one channel each, whose kernels in ONNX Runtime and OpenVINO add product by product."""
    layer = module.get_submodule(parameter.rpartition(".")[0])
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def site_of(parameter: str) -> Site:
    """The place of a parameter: its module and its own name."""
    path, _, name = parameter.rpartition(".")
    return Site(path, name)


def _least_error(rows: Tensor, limits: Tensor, highest: int) -> Tensor:
    best, least = limits, torch.full_like(limits, math.inf)
    for part in torch.linspace(0.5, 1.0, 26).tolist():
        step = (limits * part / highest).clamp_min(1e-30).unsqueeze(1)
        error = ((rows / step).round().clamp(-highest - 1, highest) * step - rows).square().sum(1)
        best = torch.where(error < least, limits * part, best)
        least = torch.minimum(error, least)
    return best
