"""Why each channel went: the verdicts that a criterion gives are those that it acts on."""

from __future__ import annotations

from typing import Any

import pytest
from tests.mappings.prunable import DATA, context, vgg

from mapsto import datasets, networks
from mapsto.mappings.prune.gradual import Gradual
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.meta import Meta
from mapsto.mappings.prune.taylor import Taylor
from mapsto.mappings.train.supervised import Supervised


@pytest.mark.parametrize(
    "criterion",
    [
        Magnitude(macs=0.5, ranking="global"),
        Magnitude(macs=0.5, ranking="per_layer"),
        Magnitude(macs=0.5, ranking="per_cost", min_channels=2),
        Taylor(macs=0.5, data=DATA, batches=2, ranking="global"),
    ],
    ids=["global", "per layer", "per cost", "taylor"],
)
def test_the_verdicts_are_what_apply_does(criterion: Any) -> None:
    whole = vgg()
    verdicts = criterion.verdicts(whole, context())
    small = criterion.apply(whole, context())
    for layer in {verdict.layer for verdict in verdicts}:
        stay = [place for v in verdicts if v.layer == layer and v.stays for place in v.outputs]
        weight = f"{layer}.weight"
        assert len(small.tensors[weight]) == len(stay) < len(whole.tensors[weight])
        norm = f"features.{int(layer.rpartition('.')[2]) + 1}.bias"
        assert small.tensors[norm].tolist() == whole.tensors[norm][stay].tolist()
    gone = [verdict.level for verdict in verdicts if not verdict.stays]
    assert {verdict.threshold for verdict in verdicts} == {max(gone)}


def test_a_low_channel_that_stays_names_the_limit() -> None:
    """Four channels of which the least stays, as its layer keeps one, where a higher one of another layer went."""
    whole = vgg((2,), (2,))
    module = whole.module()
    for name, factor in (("features.0.weight", 0.01), ("features.1.weight", 0.01), ("features.4.weight", 0.1)):
        module.state_dict()[name].mul_(factor)
    verdicts = Magnitude(parameters=0.5, normalise=False).verdicts(whole.with_module(module), context())
    assert [verdict.stays for verdict in verdicts].count(True) == 2
    held = [verdict for verdict in verdicts if verdict.why == "kept by a limit of its layer"]
    assert [verdict.layer for verdict in held] == ["features.0"]
    assert held[0].stays
    assert held[0].level <= held[0].threshold


def test_the_step_keeps_why_each_channel_went() -> None:
    """Beside its result: the criterion, the threshold, and of each channel that went score, level and rank."""
    ctx = context()
    verdicts = Magnitude(macs=0.5, ranking="per_layer").verdicts(vgg(), context())
    Magnitude(macs=0.5, ranking="per_layer").apply(vgg(), ctx)
    whole, each = ctx.attached["pruning"], ctx.attached["pruned_channels"]
    gone = [verdict for verdict in verdicts if not verdict.stays]
    assert whole.rows[0][:2] == ("prune.magnitude", "per_layer")
    assert whole.rows[0][-2:] == (len(gone), len(verdicts))
    assert [row[:2] for row in each.rows] == [(verdict.layer, verdict.channel) for verdict in gone]
    assert sorted(row[6] for row in each.rows) == list(range(1, len(gone) + 1)), "the lowest went"
    assert all(row[4] <= row[5] for row in each.rows)


def test_rounds_number_channels_as_the_network_that_was_given() -> None:
    """What each round drops, taken together, is what is missing in the end."""
    whole, ctx = vgg(), context()
    training = Supervised(data=DATA, epochs=1, batch_size=32)
    process = Gradual(criterion=Magnitude(macs=0.4, ranking="global"), train=training, rounds=3, pace="linear")
    small = process.apply(whole, ctx)
    went = ctx.attached["pruned_channels"].rows
    assert {row[0] for row in went} == {1, 2, 3} == {row[0] for row in ctx.attached["pruning"].rows}
    assert len({row[1:3] for row in went}) == len(went), "a channel goes once"
    for layer in {row[1] for row in went}:
        left = len(small.tensors[f"{layer}.weight"])
        outputs = [place for row in went if row[1] == layer for place in _places(row[3])]
        assert len(set(outputs)) == len(outputs) == len(whole.tensors[f"{layer}.weight"]) - left
        assert max(outputs) < len(whole.tensors[f"{layer}.weight"])


def test_rounds_of_a_learner_tell_why_too() -> None:
    ctx = context()
    learner = networks.conv4(width=8, blocks=2, size=16)(seed=0)
    tasks = datasets.episodes(data=datasets.digits(size=16), ways=3, shots=1, queries=2)
    small = Meta(tasks=tasks, macs=0.4, episodes=2, rounds=2).apply(learner, ctx)
    went = ctx.attached["pruned_channels"].rows
    assert {row[0] for row in went} == {1, 2}
    kept = sum(len(tensor) for name, tensor in small.tensors.items() if name.endswith("0.weight") and tensor.ndim == 4)
    assert kept == 16 - len(went)


def _places(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if last else [int(part) for part in text.split(",")]
