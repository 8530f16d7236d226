"""Which layers a quantized network leaves in float, and why: what every ``quantize.*`` tells its user."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from mapsto.errors import DomainError
from mapsto.nn.network.call_sites import Trace

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Network

__all__ = [
    "BEFORE",
    "LINEAR_ALONE",
    "is_convolution",
    "left_in_float",
    "require_quantized",
    "tell",
    "tell_again",
    "tell_all",
]

LINEAR_ALONE = "layers is linear"
"""Why a convolution stays float where the user asks for linear layers alone."""

BEFORE = "the step that quantized the network left it so"
"""Why a layer stays float in a network that comes quantized."""

_FUSED: dict[type[nn.Module], str] = {
    nn.RNNBase: "computes all its steps in one call, which has no integer form",
    nn.RNNCellBase: "computes its gates in one call, which has no integer form",
    nn.MultiheadAttention: "computes attention in one call, which has no integer form",
}
_SHOWN = 4


def left_in_float(
    module: nn.Module,
    graph: Trace,
    quantized: Collection[str],
    *,
    given: Mapping[str, str] | None = None,
    otherwise: str | None = None,
) -> dict[str, str]:
    """Path of each layer with weights that stays in float → why.

    Parameters
    ----------
    graph
        What `mapsto.nn.network.call_sites.trace` found of `module`.
    quantized
        Names of the parameters that are quantized.
    given
        Path → why that module and all below it stay in float by choice.
    otherwise
        Why a layer does that could be quantized and is not named in `given`; by default it is of a kind that has no integers.

    >>> import torch
    >>> from mapsto.nn.network.call_sites import trace
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> left_in_float(net, trace(net, torch.ones(1, 2)), {"0.weight"}, given={"1": "it is in skip"})
    {'1': 'it is in skip'}
    """
    used = {name for call in graph.calls for name in call.parameters}
    found: dict[str, str] = {}
    for path, part in module.named_modules():
        if any(path.startswith(f"{above}.") for above in found):
            continue  # a part of a layer that is named already
        fused = next((why for kind, why in _FUSED.items() if isinstance(part, kind)), None)
        if fused is None and not isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        names = {f"{path}.{name}".lstrip(".") for name, _ in part.named_parameters()}
        if names & set(quantized):
            continue
        chosen = next((why for above, why in (given or {}).items() if _under(path, above)), None)
        found[path] = chosen or fused or _why(part, names, used, otherwise)
    return found


def _why(part: nn.Module, names: Collection[str], used: Collection[str], otherwise: str | None) -> str:
    if is_parametrized(part):
        return "its weight is computed anew at every call"
    if set(names).isdisjoint(used):
        return "it is not called as a layer on what comes from the input"
    return otherwise or f"a {type(part).__name__} has no integer form here"


def is_convolution(module: nn.Module, path: str) -> bool:
    """Whether the layer at `path` is one."""
    return isinstance(module.get_submodule(path), nn.modules.conv._ConvNd)


def _under(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above}.")


def tell(found: Mapping[str, str], ctx: Context, *, count: int, asked: Collection[str] = ()) -> None:
    """Say what stays in float, reason by reason: as a warning where the user has not asked for it, else as a note.

    `count` layers are quantized; `asked` are the reasons that the user chose.
    """
    for why in dict.fromkeys(found.values()):
        paths = [path or "the network itself" for path, reason in found.items() if reason == why]
        named = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
        text = f"left in float: {named} ({len(paths)} of {count + len(found)} layers), because {why}"
        (ctx.note if why in asked else ctx.warn)(text)


def tell_again(value: Network, ctx: Context, *, where: str) -> None:
    """Note what a network that comes quantized has in float: a step that works on its integers alone leaves that as it is."""
    from mapsto.nn.network.call_sites import trace
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.quantize.post_training import quantized_edit, without_quantizers

    quantizers = quantized_edit(value, where=where).quantizers
    names = {f"{each.path}.{each.function}".lstrip(".") for each in quantizers if each.weight and each.bits <= 8}
    module = without_quantizers(value)
    graph = trace(module, example_inputs(value.signature, 2)[0])
    floats = left_in_float(module, graph, names, otherwise=BEFORE)
    tell(floats, ctx, count=len(names), asked=floats.values())


def tell_all(value: Network, ctx: Context, *, why: str) -> None:
    """Note that every layer with weights stays in float."""
    layers = [
        part for part in value.module().modules() if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd, *_FUSED))
    ]
    ctx.note(f"left in float: all {len(layers)} layers, because {why}")


def require_quantized(count: int, found: Mapping[str, str], *, where: str) -> None:
    """Raises `DomainError` where nothing is quantized, with the reason of each layer."""
    if count:
        return
    reasons = "; ".join(f"{path or 'the network itself'}: {why}" for path, why in list(found.items())[:_SHOWN])
    raise DomainError(
        f"no layer can be quantized ({reasons or 'it has no convolution and no linear layer'})",
        where=where,
        hint="skip fewer modules, or leave this step out",
    )
