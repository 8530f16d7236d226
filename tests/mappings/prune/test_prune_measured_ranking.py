"""Rankings and criteria that are chosen by what the pruned network still answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.mappings.prunable import DATA, TASKS, context, vgg
from tests.mappings.small import PREPROCESSING

from mapsto.kinds import Network
from mapsto.mappings.prune.best import Best
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.taylor import Taylor
from mapsto.nn.network.build import network_of
from mapsto.nn.prune.measured_ranking import distance_from, made_up_inputs

RANKINGS: tuple[Any, ...] = ("global", "per_peak", "per_layer", "per_cost")


def resnet() -> Network:
    torch.manual_seed(0)
    arguments = {"channels": 1, "width": 4, "classes": 10, "shortcut": "A", "depth": 8}
    return network_of("mapsto.nn.networks.resnet_cifar:resnet_cifar", arguments, PREPROCESSING)


@pytest.mark.parametrize(
    "criterion",
    [Magnitude(macs=0.5), Magnitude(macs=0.5, data=DATA), Taylor(macs=0.5, data=DATA)],
    ids=["made up", "data", "taylor"],
)
def test_the_measured_ranking_is_that_whose_answers_are_nearest(criterion: Any) -> None:
    whole = vgg((8, 8), (12,))
    by_hand = {ranking: dataclasses.replace(criterion, ranking=ranking).apply(whole, context()) for ranking in RANKINGS}
    distance = distance_from(whole, criterion.compared_on(whole, context()), context())
    distances = {ranking: distance(small) for ranking, small in by_hand.items()}
    assert len(set(distances.values())) > 1
    assert criterion.apply(whole, context()).edits == by_hand[min(RANKINGS, key=distances.__getitem__)].edits


def test_the_distance_is_zero_for_the_same_answers_and_infinite_for_none() -> None:
    whole = vgg()
    distance = distance_from(whole, made_up_inputs(whole), context())
    assert distance(whole) == pytest.approx(0, abs=1e-9)
    broken = whole.module()
    torch.nn.init.constant_(broken.get_parameter("classifier.bias"), float("nan"))
    assert distance(whole.with_module(broken)) == float("inf")


def test_a_learner_may_be_narrowed_by_the_measured_ranking() -> None:
    learner = vgg((8,), (8,), classes=None)
    small = Taylor(macs=0.6, tasks=TASKS, batches=3, prune_embedding=True).apply(learner, context())
    distance = distance_from(learner, made_up_inputs(learner), context())
    assert 0 < distance(small) < float("inf")


def test_padded_shortcuts_stay_whole_where_that_leaves_better_answers() -> None:
    ctx, said, warned = context(), list[str](), list[str]()
    ctx.log, ctx.warn = said.append, warned.append  # type: ignore[method-assign]
    whole = resnet()
    distance = distance_from(whole, made_up_inputs(whole), context())
    free = Magnitude(macs=0.7, padded=True).apply(whole, ctx)
    assert any("padded shortcuts whole" in line for line in said)
    assert distance(free) <= distance(Magnitude(macs=0.7).apply(whole, context()))


def test_padded_shortcuts_that_went_are_warned_of() -> None:
    ctx, warned = context(), list[str]()
    ctx.warn = warned.append  # type: ignore[method-assign]
    Magnitude(macs=0.6, padded=True, ranking="per_layer").apply(resnet(), ctx)
    assert any("pad with zeros" in line and "train or distil afterwards" in line for line in warned)


def test_the_best_is_no_further_away_than_any_criterion() -> None:
    whole = vgg((8, 8), (12,))
    looks: dict[str, Any] = {"macs": 0.5, "data": DATA}
    best = Best(**looks)
    distance = distance_from(whole, best.compared_on(whole, context()), context())
    others = (Taylor(**looks), *(Magnitude(macs=0.5, norm=norm, ranking=each) for norm in (1, 2) for each in RANKINGS))
    nearest = min(distance(other.apply(whole, context())) for other in others)
    assert distance(best.apply(whole, context())) == pytest.approx(nearest, rel=1e-4)
