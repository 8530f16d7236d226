"""Which layers no pruning made smaller, and what share of a network's cost they are: what the smallest size that is reached rests on."""

from __future__ import annotations

from typing import Literal

from mapsto.kinds import Network

__all__ = ["stays_whole"]

_NAMED = 3
_SHOWN = 0.005
"""A smaller share is nothing to tell of."""


def stays_whole(original: Network, small: Network, cost: Literal["parameters", "macs"]) -> str:
    """In words: the share of the small network's parameters or multiply-accumulates in layers that are as in the original.

    Empty where there is none, or nothing to count.
    """
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.profile.counts import layer_table

    before, after = (
        {layer.path: layer for layer in layer_table(network.module(), example_inputs(network.signature, 1)[0])}
        for network in (original, small)
    )
    total = sum(getattr(layer, cost) for layer in after.values())
    whole = {
        path: getattr(layer, cost) / total
        for path, layer in after.items()
        if total
        and layer.parameters
        and getattr(layer, cost)
        and path in before
        and before[path].parameters == layer.parameters
    }
    if sum(whole.values()) < _SHOWN:
        return ""
    largest = sorted(whole.items(), key=lambda item: -item[1])[:_NAMED]
    named = ", ".join(f"{path or 'the network'} {100 * share:.0f} %" for path, share in largest if share >= _SHOWN)
    noun = {"parameters": "parameters", "macs": "multiply-accumulates"}[cost]
    return f"{100 * sum(whole.values()):.0f} % of its {noun} are in layers that stay whole ({named})"
