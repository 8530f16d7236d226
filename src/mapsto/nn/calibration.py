"""Choosing quantizers: which places of a network get one, and which range of values each covers.

Places are chosen so that a runtime can fuse every operation into an integer one: each operation's result is quantized, except
that a rectifier is quantized instead of what feeds it, with the code of zero the lowest one, so that the rectifier itself
vanishes into the clamp; a pooling that only selects keeps its input's codes; and a last convolution or linear layer stays float.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from mapsto.errors import DataError, DomainError
from mapsto.nn.edits.quantizers import Quantizer
from mapsto.nn.entropy import entropy_range
from mapsto.nn.sites import INPUT, Call, Site, SiteMode, Trace, results, trace

__all__ = [
    "Observer",
    "Plan",
    "Range",
    "calibrate",
    "dynamic_layers",
    "observe",
    "plan",
    "quantizers_for",
    "thin_first_layer",
]

Observer: TypeAlias = Literal["minmax", "percentile", "mse", "entropy"]

_WEIGHTED = {"conv1d": 0, "conv2d": 0, "conv3d": 0, "linear": 0, "conv_transpose1d": 1, "conv_transpose2d": 1}
_RECTIFIERS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
_RESHAPES = frozenset(
    {
        "flatten",
        "view",
        "reshape",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "contiguous",
        "to",
        "dropout",
        "getitem",
    }
)
_PARTS = frozenset({"chunk", "split", "split_with_sizes", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split"})
"""Each result is a part of the input."""
_SELECTIONS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "pad", *_PARTS})
_FLOAT_AT_THE_END = frozenset({*_WEIGHTED, "softmax", "log_softmax", "sigmoid", "tanh", "normalize", "div"})
_BINS = 2048


@dataclass(frozen=True)
class Plan:
    """Where quantizers go."""

    observed: tuple[Site, ...]
    """Places whose range is measured."""
    follows: dict[Site, Site]
    """Places that take the quantizer of an observed one."""
    rectified: frozenset[Site]
    """Observed places whose values are never negative."""
    weights: dict[str, int]
    """Parameter name → the dimension of its output channels."""
    biases: dict[str, tuple[str, Site]]
    """Bias name → its weight's name, and the place whose quantizer the layer's input has."""


def calibrate(
    module: nn.Module,
    batches: Sequence[Tensor],
    *,
    bits: int = 8,
    signed: bool = False,
    observer: Observer = "minmax",
    percentile: float = 99.99,
    reduce_range: bool = False,
    skip: Iterable[str] = (),
) -> tuple[Quantizer, ...]:
    """The quantizers for `module`, whose ranges are read from batches of inputs, each of shape (N, ...).

    Raises `DataError` for inputs that are not finite and `DomainError` for weights that are not.
    """
    chosen = plan(trace(module, batches[0][:2]), skip=skip)
    ranges = observe(module, batches, chosen.observed, histogram=observer != "minmax")
    return quantizers_for(
        module,
        chosen,
        ranges,
        bits=bits,
        signed=signed,
        observer=observer,
        percentile=percentile,
        reduce_range=reduce_range,
    )


def quantizers_for(
    module: nn.Module,
    chosen: Plan,
    ranges: Mapping[Site, Range],
    *,
    bits: int,
    signed: bool,
    observer: Observer,
    percentile: float,
    reduce_range: bool,
) -> tuple[Quantizer, ...]:
    """The quantizers of a plan from ranges that were observed, of its places or of more."""
    found: list[Quantizer] = []
    for site in (*chosen.observed, *chosen.follows):
        source = chosen.follows.get(site, site)
        low, high = clipped(ranges[source], observer, percentile, bits)
        rectified = source in chosen.rectified and ranges[source].low >= 0
        found.append(activation_quantizer(site, low, high, bits=bits, signed=signed, rectified=rectified))
    for name, axis in chosen.weights.items():
        weight = module.get_parameter(name)
        reduced = reduce_range and not _is_depthwise(module, name)
        found.append(weight_quantizer(name, weight, axis=axis, bits=bits, reduce_range=reduced, observer=observer))
    by_site = {quantizer.site: quantizer for quantizer in found}
    for name, (weight, source) in chosen.biases.items():
        found.append(bias_quantizer(name, by_site[_site_of(weight)], by_site[source]))
    return tuple(found)


def thin_first_layer(module: nn.Module, graph: Trace, *, always: bool = False) -> tuple[str, ...]:
    """The path of the convolution that takes the input itself, if that has fewer than 3 channels (or `always`)."""
    for call in users(INPUT, graph.consumers()):
        layer = module.get_submodule(call.site.path)
        if isinstance(layer, nn.Conv2d) and (always or layer.in_channels < 3):
            return (call.site.path,)
    return ()


def dynamic_layers(graph: Trace, *, skip: Iterable[str] = (), convolutions: bool = True) -> tuple[str, ...]:
    """Names of the weights whose layers can quantize their input at run time, in the order they are used, each once."""
    skipped = tuple(skip)
    names = (
        call.parameters[0]
        for call in graph.calls
        if call.site.function in ("linear", *(("conv1d", "conv2d", "conv3d") if convolutions else ()))
        and call.parameters
        and not _under(call.site.path, skipped)
    )
    return tuple(dict.fromkeys(names))


def plan(graph: Trace, *, skip: Iterable[str] = ()) -> Plan:
    """Choose the places from a trace; modules at or under the paths in `skip` stay float."""
    skipped = tuple(skip)
    consumers = graph.consumers()
    last = {_producer(site, graph) for site in graph.outputs}
    observed: list[Site] = []
    follows: dict[Site, Site] = {}
    weights: dict[str, int] = {}
    biases: dict[str, tuple[str, Site]] = {}
    source_of: dict[Site, Site] = {}
    if graph.floats and any(not _under(call.site.path, skipped) for call in users(INPUT, consumers)):
        observed.append(INPUT)
    source_of[INPUT] = INPUT
    for call in graph.calls:
        site, function = call.site, call.site.operation
        source_of[site] = source_of[call.sources[0]] if function in _RESHAPES | _SELECTIONS else site
        if not call.floats or _under(site.path, skipped) or function in _RESHAPES:
            continue
        if function in _WEIGHTED and call.parameters:
            weights[call.parameters[0]] = _WEIGHTED[function]
            if len(call.parameters) > 1 and source_of[call.sources[0]] in observed:
                biases[call.parameters[1]] = (call.parameters[0], source_of[call.sources[0]])
        if function in _SELECTIONS:
            if source_of[site] in observed:
                follows[site] = source_of[site]
        elif not _absorbed(site, consumers, skipped) and not (site in last and function in _FLOAT_AT_THE_END):
            observed.append(site)
    rectified = frozenset(site for site in observed if site.function in _RECTIFIERS)
    return Plan(tuple(observed), follows, rectified, weights, biases)


def users(site: Site, consumers: dict[Site, list[Call]]) -> Iterator[Call]:
    """The calls that compute with a result, seen through those that only rearrange or select."""
    for call in consumers.get(site, []):
        if call.site.operation in _RESHAPES | _SELECTIONS:
            yield from users(call.site, consumers)
        else:
            yield call


def _under(path: str, skipped: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in skipped)


def _producer(site: Site, graph: Trace) -> Site:
    """The call that computed what reshapes only rearranged."""
    calls = {call.site: call for call in graph.calls}
    while site in calls and site.function in _RESHAPES:
        site = calls[site].sources[0]
    return site


def _absorbed(site: Site, consumers: dict[Site, list[Call]], skipped: tuple[str, ...]) -> bool:
    """Whether a rectifier that takes the result alone is quantized in its place."""
    takers = consumers.get(site, [])
    return len(takers) == 1 and takers[0].site.function in _RECTIFIERS and not _under(takers[0].site.path, skipped)


# ------------------------------------------------------------------------------------------------------------------ ranges


@dataclass
class Range:
    """The extremes of the values seen at a place, and their histogram once the extremes are known."""

    low: float = 0.0
    high: float = 0.0
    counts: Tensor | None = None

    def widen(self, values: Tensor) -> None:
        """Take in the extremes of `values`; 0 is always within. Raises `ValueError` where one is NaN or infinite."""
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        if not math.isfinite(high - low):
            raise ValueError(f"the values reach from {low} to {high}")
        self.low, self.high = min(self.low, low), max(self.high, high)

    def count(self, values: Tensor) -> None:
        """Add `values` to the histogram between the extremes."""
        if self.high > self.low:
            counts = torch.histc(values.float(), _BINS, self.low, self.high).double()
            self.counts = counts if self.counts is None else self.counts + counts


class _Watch(SiteMode):
    def __init__(self, root: nn.Module, ranges: dict[Site, Range], counting: bool) -> None:
        super().__init__(root)
        self.ranges, self.counting = ranges, counting

    def see(self, site: Site, values: Tensor) -> None:
        if site in self.ranges:
            try:
                (self.ranges[site].count if self.counting else self.ranges[site].widen)(values)
            except ValueError as error:
                hint = "check the calibration data and the weights"
                raise DataError(f"not all finite: {error}", where=str(site), hint=hint) from error

    def visit(self, site: Site, function: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        result = super().visit(site, function, args, kwargs)  # type: ignore[arg-type]
        for place, values in results(site, result):
            self.see(place, values)
        return result


def observe(
    module: nn.Module, batches: Sequence[Tensor], sites: Iterable[Site], *, histogram: bool
) -> dict[Site, Range]:
    """The ranges of the values at `sites` over batches of shape (N, ...), which are gone through once or, for histograms, twice.

    Raises `DataError` where a value is not finite.
    """
    ranges = {site: Range() for site in sites}
    with torch.no_grad():
        for counting in (False, True) if histogram else (False,):
            for batch in batches:
                watch = _Watch(module, ranges, counting)
                watch.see(INPUT, batch)
                with watch:
                    module(batch)
    return ranges


def clipped(seen: Range, observer: Observer, percentile: float, bits: int) -> tuple[float, float]:
    """The ends of the range that a quantizer covers: what `observer` makes of the values seen."""
    if observer == "minmax" or seen.counts is None:
        return seen.low, seen.high
    if observer == "entropy":
        return entropy_range(seen.counts.numpy(), seen.low, seen.high, bits)
    edges = torch.linspace(seen.low, seen.high, _BINS + 1, dtype=torch.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    if observer == "percentile":
        share = seen.counts.cumsum(0) / seen.counts.sum()
        tail = (1 - percentile / 100) / 2
        low = edges[int((share <= tail).sum())] if seen.low < 0 else edges[0]
        high = edges[1 + int((share < 1 - (tail if seen.low < 0 else 2 * tail)).sum().clamp(max=_BINS - 1))]
        return min(float(low), 0.0), max(float(high), 0.0)
    ends = [(seen.low * part, seen.high * part) for part in torch.linspace(0.3, 1.0, 71).tolist()]
    return min(ends, key=lambda end: _squared_error(centres, seen.counts, end, bits))  # type: ignore[arg-type]


def _squared_error(values: Tensor, counts: Tensor, end: tuple[float, float], bits: int) -> float:
    low, high = end
    step = (high - low) / (2**bits - 1)
    inside = values.clamp(low, high)
    rounded = ((inside - low) / step).round() * step + low
    return float((counts * (rounded - values) ** 2).sum())


# -------------------------------------------------------------------------------------------------------------- quantizers


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
    site = _site_of(name)
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
    site = _site_of(name)
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


def _is_depthwise(module: nn.Module, parameter: str) -> bool:
    """Whether it is the weight of a convolution of one channel each, whose kernels in ONNX Runtime and OpenVINO add product by product."""
    layer = module.get_submodule(parameter.rpartition(".")[0])
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _site_of(parameter: str) -> Site:
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
