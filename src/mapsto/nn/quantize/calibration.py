"""Choosing quantizers: which places of a network get one, and which range of values each covers.

Places are chosen so that a runtime can fuse every operation into an integer one: each operation's result is quantized, except
that a rectifier is quantized instead of what feeds it, with the code of zero the lowest one, so that the rectifier itself
vanishes into the clamp; a pooling that only selects keeps its input's codes; and a last convolution or linear layer stays float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from mapsto.nn.edits.quantizers import Quantizer
from mapsto.nn.network.call_sites import Site, trace
from mapsto.nn.quantize.observers import Observer, Range, clipped, observe
from mapsto.nn.quantize.placement import Placement, place_quantizers
from mapsto.nn.quantize.quantizer_params import (
    activation_quantizer,
    bias_quantizer,
    is_depthwise,
    site_of,
    weight_quantizer,
)

__all__ = ["calibrate", "quantizers_for"]


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
    chosen = place_quantizers(trace(module, batches[0][:2]), skip=skip)
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
    chosen: Placement,
    ranges: Mapping[Site, Range],
    *,
    bits: int,
    signed: bool,
    observer: Observer,
    percentile: float,
    reduce_range: bool,
) -> tuple[Quantizer, ...]:
    """The quantizers of a placement from ranges that were observed, of its places or of more."""
    found: list[Quantizer] = []
    for site in (*chosen.observed, *chosen.follows):
        source = chosen.follows.get(site, site)
        low, high = clipped(ranges[source], observer, percentile, bits)
        rectified = source in chosen.rectified and ranges[source].low >= 0
        found.append(activation_quantizer(site, low, high, bits=bits, signed=signed, rectified=rectified))
    for name, axis in chosen.weights.items():
        weight = module.get_parameter(name)
        reduced = reduce_range and not is_depthwise(module, name)
        found.append(weight_quantizer(name, weight, axis=axis, bits=bits, reduce_range=reduced, observer=observer))
    by_site = {quantizer.site: quantizer for quantizer in found}
    for name, (weight, source) in chosen.biases.items():
        found.append(bias_quantizer(name, by_site[site_of(weight)], by_site[source]))
    return tuple(found)
