"""Structured pruning: find the groups, rank their channels, drop the least important ones until the budget is met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.network.build import with_output
from mapsto.nn.network.examples import example_batch
from mapsto.nn.prune.budget import Budget, Budgeted, places, search
from mapsto.nn.prune.channel_verdicts import Choice
from mapsto.nn.prune.checks import require_prunable
from mapsto.nn.prune.costs import Costs, latency_ms
from mapsto.nn.prune.dependency_groups import Group, Mask, channels_edit, find_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Importance", "Ranked", "choice", "chosen", "pruned", "ranked"]

Importance = Callable[[nn.Module, Sequence[Group]], Mapping[str, "NDArray[np.float64]"]]
"""(module in evaluation mode, groups) → group → importance of each channel, shape (channels,)."""
_NAMED = 3
_TINY = 1e-12
"""Share of the cost; what saves less is as good as free, and goes last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """A network with its groups, and how important their channels are."""

    network: Network
    groups: tuple[Group, ...]
    scores: Mapping[str, NDArray[np.float64]]
    """Group → importance of each channel, shape (channels,); a group that is not named stays whole."""
    whole: Mapping[str, str] = field(default_factory=dict[str, str])
    """Path of each layer whose channels must all stay → why."""

    def shrunk(self, kept: Mapping[str, Mask]) -> Network:
        """The network with only the channels `kept`; a group that is not named stays whole."""
        module = self.network.module()
        edit = channels_edit(module, self.groups, kept)
        if not edit.kept:
            return self.network
        signature = self.network.signature
        for group in self.groups:
            if group.features and group.name in kept:
                signature = with_output(signature, int(kept[group.name].sum()) * group.features, None)
        return self.network.with_module(edit.apply(module), edit, signature=signature)


def ranked(
    network: Network,
    importance: Importance,
    *,
    embedding: bool = False,
    padded: bool = False,
    where: str = "prune",
    log: Callable[[str], None] = lambda _: None,
) -> Ranked:
    """The groups of `network` with their channels' importance; with `embedding` a learner's may become narrower, with `padded`
    shortcuts that pad with zeros. See `pruned`.
    """
    module = require_prunable(network, where=where, adapters=True)
    search = find_groups(module, example_batch(network), embedding=embedding, padded=padded)
    for reason, count in Counter(search.whole.values()).items():
        named = [path for path, given in search.whole.items() if given == reason]
        log(f"left whole: {', '.join(named[:3])}{f' and {count - 3} more' if count > 3 else ''} ({reason})")
    if not search.groups:
        raise DomainError(
            f"no layer of it can be pruned ({'; '.join(f'{path}: {why}' for path, why in list(search.whole.items())[:3])})",
            where=where,
            hint="a classifier's outputs stay; a learner's embedding goes with prune_embedding=True",
        )
    scores = importance(module, search.groups)
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise DomainError("the channels' importance is not finite", where=where, hint="look for NaN in the data")
    return Ranked(network=network, groups=search.groups, scores=scores, whole=search.whole)


def choice(
    candidates: Ranked, settings: Budgeted, *, whole: Mapping[str, int] | None = None, where: str = "prune"
) -> Choice:
    """Which channels stay for the budget, and what they were compared by; see `pruned`."""
    counted = settings.budget if not settings.latency_ms else Budget("macs", 1.0)
    costs = Costs(candidates.network.module(), example_batch(candidates.network), candidates.groups, counted)
    scores = candidates.scores
    if settings.ranking == "per_cost":
        prices = costs.of_a_channel(candidates.groups)
        scores = {name: values / max(prices[name], _TINY) for name, values in scores.items()}
    left = _left_whole(candidates, costs, counted) if not settings.latency_ms else ""
    kept = search(
        scores,
        latency_ms(candidates.shrunk, settings.runtime) if settings.latency_ms else costs,
        settings.budget,
        ranking="per_layer" if settings.ranking == "per_layer" else "global",
        limits=settings.limits,
        whole=whole,
        where=where,
        left=left,
    )
    levels = {name: places(values) for name, values in scores.items()} if settings.ranking == "per_layer" else scores
    return Choice(kept=kept, levels=levels, ranking=settings.ranking)


def chosen(
    candidates: Ranked, settings: Budgeted, *, whole: Mapping[str, int] | None = None, where: str = "prune"
) -> dict[str, Mask]:
    """Which channels stay for the budget: group → mask, shape (channels,); see `pruned`."""
    return choice(candidates, settings, whole=whole, where=where).kept


def _left_whole(candidates: Ranked, costs: Costs, budget: Budget) -> str:
    """The layers that stay whole, with their share of the cost, for the message where a budget is out of reach."""
    shares = sorted(((costs.share_of(path), path, why) for path, why in candidates.whole.items()), reverse=True)
    named = [
        f"{path or 'the network itself'} ({share:.0%}: {why})" for share, path, why in shares[:_NAMED] if share >= 0.01
    ]
    rest = costs.rest_share
    if rest >= 0.01:
        named.append(
            f"what no layer of its own computes ({rest:.0%}: attention, recurrent layers, products of activations)"
        )
    return f"these stay whole, with their shares of {budget.kind}: {'; '.join(named)}" if named else ""


def pruned(
    network: Network,
    settings: Budgeted,
    importance: Importance,
    *,
    whole: Mapping[str, int] | None = None,
    where: str = "prune",
    log: Callable[[str], None] = lambda _: None,
) -> Network:
    """`network` with the least important channels dropped.

    Parameters
    ----------
    settings
        The budget and what every layer keeps.
    importance
        May run the module it is given, move it, and change its gradients, but not its weights.
    whole
        Group → its channels before any pruning, where `network` was pruned before; `max_prune` is a share of these.
    log
        Is told what went and which layers are left whole.

    Raises
    ------
    DomainError
        The network is quantized, not finite, has several inputs, no channels to prune, or cannot be made as small as asked.
    """
    candidates = ranked(
        network, importance, embedding=settings.prune_embedding, padded=settings.padded, where=where, log=log
    )
    kept = chosen(candidates, settings, whole=whole, where=where)
    before, after = sum(map(len, kept.values())), sum(int(mask.sum()) for mask in kept.values())
    log(f"{after} of {before} channels stay in {len(kept)} groups")
    return candidates.shrunk(kept)
