"""Which places of a network get a quantizer, so that a runtime can fuse every operation into an integer one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from mapsto.nn.network.call_sites import INPUT, Site, SiteCall, Trace

__all__ = ["Placement", "dynamic_layers", "place_quantizers", "thin_first_layer", "users"]


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
_FLOAT_AT_THE_END = frozenset({*_WEIGHTED, "softmax", "log_softmax", "sigmoid", "tanh", "normalize", "div", "voted"})


@dataclass(frozen=True)
class Placement:
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


def place_quantizers(graph: Trace, *, skip: Iterable[str] = ()) -> Placement:
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
    return Placement(tuple(observed), follows, rectified, weights, biases)


def users(site: Site, consumers: dict[Site, list[SiteCall]]) -> Iterator[SiteCall]:
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


def _absorbed(site: Site, consumers: dict[Site, list[SiteCall]], skipped: tuple[str, ...]) -> bool:
    """Whether a rectifier that takes the result alone is quantized in its place."""
    takers = consumers.get(site, [])
    return len(takers) == 1 and takers[0].site.function in _RECTIFIERS and not _under(takers[0].site.path, skipped)
