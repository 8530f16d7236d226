"""Whether a step with a budget came where it was asked to: the network is measured again after the cut, by a count of its own.

What a step plans by (shapes of layers, heads that cost alike, ranks) is not asked again: the network it made is counted as a whole.
Every mapping with a budget calls `told_reached`, which ``tests/mappings/prune/test_prune_budgets.py`` checks of each.
"""

from __future__ import annotations

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.network.examples import example_batch
from mapsto.nn.profile.cost import cost_of
from mapsto.nn.prune.budget import Budget, missed
from mapsto.nn.prune.costs import latency_ms

__all__ = ["told_reached"]


def told_reached(
    before: Network, after: Network, budget: Budget, ctx: Context, *, runtime: str = "onnxruntime", verb: str = ""
) -> None:
    """Warn where a network costs more than was asked for, note where it costs far less; both say what is still whole.

    Parameters
    ----------
    before
        What a budget that is a share is a share of.
    after
        What the step made of it.
    runtime
        What a budget in milliseconds is measured in, once more.
    verb
        What `after` is, where it is not the step's result, as in "what will go".
    """
    from mapsto.nn.prune.unpruned_layers import stays_whole

    whole = _measured(before, budget, runtime) if budget.unit == "share" else 1.0
    reached = _measured(after, budget, runtime) / max(whole, 1e-12)
    found = missed(budget, reached, cut=after is not before)
    if found is None:
        return
    rest = stays_whole(before, after, "macs" if budget.kind in ("macs", "latency_ms") else "parameters")
    text = f"{f'{verb}: ' if verb else ''}{found.text}{f'; {rest}' if rest else ''}"
    (ctx.warn if found.above else ctx.note)(text)


def _measured(network: Network, budget: Budget, runtime: str) -> float:
    """Multiply-accumulates, parameters, bytes, heads or milliseconds."""
    if budget.kind == "latency_ms":
        return latency_ms(lambda _: network, runtime)({})
    if budget.kind == "heads":
        from mapsto.nn.prune.attention_heads import find_attentions

        return sum(each.group.channels for each in find_attentions(network.module(), example_batch(network)).found)
    return cost_of(network, budget.kind)
