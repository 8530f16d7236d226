"""Structured pruning: find the groups, rank their channels, drop the least important ones until the budget is met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.network.build import with_output
from mapsto.nn.network.examples import example_batch
from mapsto.nn.prune.budget import Budget, Budgeted, places, search
from mapsto.nn.prune.channel_verdicts import COMPARED, Choice, Compared
from mapsto.nn.prune.checks import require_prunable
from mapsto.nn.prune.costs import Costs, latency_ms
from mapsto.nn.prune.dependency_groups import Group, Mask, channels_edit, find_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Importance", "Judge", "Ranked", "choice", "ranked", "thinned_padding"]

Importance = Callable[[nn.Module, Sequence[Group]], Mapping[str, "NDArray[np.float64]"]]
"""(module in evaluation mode, groups) → group → importance of each channel, shape (channels,)."""
Judge = Callable[[Network], float]
"""Pruned network → how far it is from its original; the smaller, the better."""
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
    padded: frozenset[str] = frozenset()
    """Groups that run along a shortcut which pads with zeros."""

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
    """The groups of `network` with their channels' importance.

    Parameters
    ----------
    importance
        May run the module it is given, move it, and change its gradients, but not its weights.
    embedding, padded
        Whether a learner's embedding, and shortcuts that pad with zeros, may become narrower.
    log
        Is told which layers are left whole.

    Raises
    ------
    DomainError
        The network is quantized, not finite, has several inputs, or no channels to prune.
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
    along = _along_padding(network, search.groups, embedding=embedding) if padded else frozenset[str]()
    return Ranked(network=network, groups=search.groups, scores=scores, whole=search.whole, padded=along)


def _along_padding(network: Network, groups: Sequence[Group], *, embedding: bool) -> frozenset[str]:
    """Those of the groups that are left whole where padded shortcuts are."""
    plain = find_groups(network.module(), example_batch(network), embedding=embedding).groups
    others = {frozenset((member.name, member.dim) for member in group.members) for group in plain}
    return frozenset(
        group.name for group in groups if frozenset((member.name, member.dim) for member in group.members) not in others
    )


def choice(
    candidates: Ranked,
    settings: Budgeted,
    *,
    judge: Judge | None = None,
    whole: Mapping[str, int] | None = None,
    where: str = "prune",
    log: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Which channels stay for the budget, and what they were compared by.

    Parameters
    ----------
    settings
        The budget and what every layer keeps.
    judge
        What the rankings are compared by, where the settings want that.
    whole
        Group → its channels before any pruning, where the network was pruned before; `max_prune` is a share of these.
    log
        Is told which ranking was taken.

    Raises
    ------
    DomainError
        The network cannot be made as small as asked.
    """
    counted = settings.budget if not settings.latency_ms else Budget("macs", 1.0)
    costs = Costs(candidates.network.module(), example_batch(candidates.network), candidates.groups, counted)
    cost = latency_ms(candidates.shrunk, settings.runtime) if settings.latency_ms else costs
    left = _left_whole(candidates, costs, counted) if not settings.latency_ms else ""

    def by(ranking: Compared, scores: Mapping[str, NDArray[np.float64]]) -> Choice:
        levels = dict(scores)
        if ranking == "per_cost":
            prices = costs.of_a_channel(candidates.groups)
            levels = {name: values / max(prices[name], _TINY) for name, values in levels.items()}
        if ranking == "per_peak":
            levels = {
                name: values / max(float(values.max()), np.finfo(np.float64).tiny) for name, values in levels.items()
            }
        if ranking == "per_layer":
            levels = {name: places(values) for name, values in levels.items()}
        kept = search(levels, cost, settings.budget, limits=settings.limits, whole=whole, where=where, left=left)
        return Choice(kept=kept, levels=levels, ranking=ranking)

    if settings.ranking != "measured":
        return by(settings.ranking, candidates.scores)
    if judge is None:
        raise DomainError(
            "nothing says how far a pruned network is from its original", where=where, hint="give another ranking"
        )
    tried = {ranking: by(ranking, candidates.scores) for ranking in COMPARED}
    unpadded = {name: scores for name, scores in candidates.scores.items() if name not in candidates.padded}
    if unpadded and len(unpadded) < len(candidates.scores):
        with suppress(DomainError):  # the budget may be out of reach without them
            tried |= {f"{ranking}, padded shortcuts whole": by(ranking, unpadded) for ranking in COMPARED}
    distances = {name: judge(candidates.shrunk(found.kept)) for name, found in tried.items()}
    nearest = min(distances, key=lambda name: distances[name])
    told = ", ".join(f"{name} {distance:.3g}" for name, distance in distances.items())
    log(f"ranking: {nearest}, which leaves the answers nearest to the original's ({told})")
    return replace(tried[nearest], compared=distances)


def thinned_padding(candidates: Ranked, kept: Mapping[str, Mask]) -> str:
    """What to warn of where padded shortcuts were made narrower, else nothing."""
    thinned = sorted(name for name in candidates.padded if name in kept and not kept[name].all())
    if not thinned:
        return ""
    return (
        f"channels went that shortcuts pad with zeros ({', '.join(thinned[:_NAMED])}): until the network is trained again this costs more "
        "accuracy than other channels do; leave padded out, or train or distil afterwards"
    )


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
