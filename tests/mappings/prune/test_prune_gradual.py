"""Pruning in rounds with training between them: how much goes when, and going on after a kill."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.mappings.prunable import DATA, TASKS, Odd, context, vgg, widths
from tests.mappings.small import trained

from mapsto.context import Context
from mapsto.data.augment.noise import Noise
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.distill.logits import Logits
from mapsto.mappings.evaluate.sensitivity import Sensitivity as Drops
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.meta.protonet import Protonet
from mapsto.mappings.prune.gradual import Gradual
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.random import Random
from mapsto.mappings.prune.sensitivity import Sensitivity
from mapsto.mappings.prune.taylor import Taylor
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.profile.cost import cost_of
from mapsto.nn.prune.iterative import packed, remaining, unpacked
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump
from mapsto.run.executor import execute
from mapsto.store import decode_state, encode_state, network_digest

TRAINING = Supervised(data=DATA, epochs=1, batch_size=40, augment=(Noise(std=0.025),))
"""Two steps a round."""
WHOLE = vgg((16,), (24,))


def gradual(**fields: Any) -> Gradual:
    return Gradual(**{"criterion": Magnitude(macs=0.3), "train": TRAINING, "rounds": 3, **fields})


@pytest.mark.parametrize("pace", ["cubic", "linear", "geometric"])
@pytest.mark.parametrize("kind", ["macs", "parameters", "bytes"])
def test_each_round_has_its_budget(pace: Any, kind: Any) -> None:
    small, metrics = trained(gradual(criterion=Magnitude(**{kind: 0.3}, ranking="global"), pace=pace), WHOLE)
    assert len(small.edits) == 3
    assert [m["round"] for m in metrics] == [1, 1, 2, 2, 3, 3]
    for number in (1, 2, 3):
        wanted = remaining(pace, number / 3, 0.3)
        assert wanted - 0.1 < metrics[2 * number - 1]["cost_share"] <= wanted + 1e-9
    assert 0.2 < cost_of(small, kind) / cost_of(WHOLE, kind) <= 0.3


def test_a_budget_in_bytes() -> None:
    small = gradual(criterion=Magnitude(bytes=4000.0, ranking="global")).apply(WHOLE, context())
    assert 3500 < cost_of(small, "bytes") <= 4000
    assert gradual(criterion=Magnitude(bytes=1e9)).apply(WHOLE, context()).edits == ()


def test_one_round_is_pruning_and_then_training() -> None:
    ctx = context()
    once = gradual(rounds=1).apply(WHOLE, ctx)
    assert once.edits == Magnitude(macs=0.3)(WHOLE).edits
    assert not torch.equal(once.tensors["features.0.weight"], Magnitude(macs=0.3)(WHOLE).tensors["features.0.weight"])


@pytest.mark.parametrize(
    "stop", [pytest.param(stop, marks=pytest.mark.slow) if stop in (1, 4) else stop for stop in range(1, 6)]
)
def test_it_goes_on_wherever_it_was_stopped(stop: int) -> None:
    process = gradual(criterion=Taylor(macs=0.3, data=DATA, batches=2))
    undisturbed, metrics = trained(process, WHOLE)
    resumed, again = trained(process, WHOLE, stop=stop)
    assert network_digest(resumed) == network_digest(undisturbed)
    assert again == metrics
    assert len(undisturbed.edits) == 3


@pytest.mark.parametrize("stop", [2, 3])
def test_with_an_average_and_adam(stop: int) -> None:
    training = Supervised(data=DATA, epochs=1, batch_size=40, ema=0.9, optimizer="adam", learning_rate=1e-3)
    process = gradual(train=training, criterion=Random(macs=0.3))
    assert network_digest(trained(process, WHOLE, stop=stop)[0]) == network_digest(trained(process, WHOLE)[0])


def test_a_snapshot_has_the_same_place() -> None:
    process, ctx = gradual(), context()
    live = process.open(WHOLE, None, ctx)
    assert live.total == 6
    for step in range(6):
        kept = decode_state(encode_state(live.snapshot()))
        assert kept is not None
        again = process.open(WHOLE, kept, context())
        assert (again.step, again.total, again.done) == (live.step, live.total, live.done) == (step, 6, False)
        ctx.seed_everything(step)
        live.advance(step)
    assert (live.step, live.total, live.done) == (6, 6, True)


def test_rounds_have_orders_of_their_own() -> None:
    process, ctx = gradual(criterion=Magnitude(macs=0.999)), context()
    live = process.open(WHOLE, None, ctx)
    seen: list[Any] = []
    for step in range(6):
        seen.append(live._items[live._inner.step].labels.tolist())
        live.advance(step)
    assert len({tuple(labels) for labels in seen}) == 6


def test_the_most_that_goes_is_of_what_there_was() -> None:
    small = gradual(criterion=Magnitude(macs=0.45, max_prune=0.4, ranking="per_layer")).apply(WHOLE, context())
    assert all(width >= 0.6 * whole for width, whole in zip(widths(small), (16, 24), strict=True))
    few = gradual(criterion=Magnitude(macs=0.3, multiple_of=4, min_channels=8)).apply(WHOLE, context())
    assert all(width % 4 == 0 and width >= 8 for width in widths(few))


def test_a_student_learns_from_the_whole_network() -> None:
    training = Logits(teacher=WHOLE, data=DATA, epochs=1, batch_size=40)
    small, _ = trained(gradual(train=training), WHOLE, stop=3)
    assert network_digest(small) == network_digest(trained(gradual(train=training), WHOLE)[0])
    assert small.signature == WHOLE.signature


@pytest.mark.parametrize("stop", [None, 3, 4])
def test_a_learner_stays_a_learner(stop: int | None) -> None:
    learner = vgg((8,), (12,), classes=None)
    criterion = Taylor(tasks=TASKS, macs=0.4, batches=2, prune_embedding=True)
    small, _ = trained(gradual(criterion=criterion, train=Protonet(tasks=TASKS, steps=2)), learner, stop=stop)
    assert small.signature.outputs[0].shape[1] == widths(small)[1] < 12
    assert small.adaptation is not None
    assert len(small.edits) > 1


def test_by_sensitivity() -> None:
    by = Drops(data=DATA, ratios=(0.5,))
    small, _ = trained(gradual(criterion=Sensitivity(criterion=Magnitude(macs=0.3), by=by)), WHOLE)
    assert cost_of(small, "macs") <= 0.3 * cost_of(WHOLE, "macs")


def test_early_stopping_ends_a_round() -> None:
    from mapsto.mappings.adapt.finetune import Finetune

    training = Finetune(data=DATA, epochs=5, batch_size=40, stop_after=1, learning_rate=0.5, begin="random")
    _, metrics = trained(gradual(train=training), WHOLE)
    assert len(metrics) < 30
    assert metrics[-1]["round"] == 3


def test_a_budget_out_of_reach_is_refused_before_any_training() -> None:
    with pytest.raises(DomainError, match=r"macs = 0.0001 is out of reach: the smallest is 0\.\d+"):
        gradual(criterion=Magnitude(macs=1e-4)).open(WHOLE, None, context())
    with pytest.raises(DomainError, match="max_prune"):
        gradual(criterion=Magnitude(macs=0.2, max_prune=0.1)).open(WHOLE, None, context())


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(SpecError, match=r"criterion is evaluate.size, which ranks no channels"):
        gradual(criterion=Size())
    with pytest.raises(SpecError, match=r"budget of 2\.0 ms.*macs, parameters or bytes"):
        gradual(criterion=Magnitude(latency_ms=2))
    with pytest.raises(SpecError, match=r"train is prune.magnitude, which is no process"):
        gradual(train=Magnitude(macs=0.5))
    with pytest.raises(SpecError, match="rounds"):
        gradual(rounds=0)
    with pytest.raises(SpecError, match="pace"):
        gradual(pace="fast")


def test_data_with_nan_is_refused() -> None:
    from mapsto.errors import DataError

    with pytest.raises(DataError, match="row 3 holds nan"):
        gradual(train=Supervised(data=Odd(what="nan"))).apply(WHOLE, context())


RECIPE = """
schema: 1
name: rounds
data:
  digits: {subset: {data: {digits: {size: 8}}, per_class: 8}}
steps:
  - networks.vgg: {plan: [[8], [12]], data: $digits, classes: data}
    as: big
  - prune.gradual:
      criterion: {prune.taylor: {data: $digits, macs: 0.4}}
      train: {distill.logits: {teacher: $big, data: $digits, epochs: 1, batch_size: 40}}
      rounds: 2
    as: small
    observe: {size: {evaluate.size: {baseline: $big}}}
quick: {small.rounds: 1}
"""


def test_from_a_recipe(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe(RECIPE)
    assert parse_recipe(dump(recipe)) == recipe
    run = execute(recipe, store=tmp_path / "whole")
    assert run.report("small.size").metrics["macs_ratio"].value >= 2.5
    monkeypatch.setenv("MAPSTO_CHECKPOINT_SECONDS", "0")
    calls = {"left": 3}
    seed = Context.seed_everything

    def killed(self: Context, *parts: object) -> None:
        if parts and isinstance(parts[0], int):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise KeyboardInterrupt
        seed(self, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "seed_everything", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe, store=tmp_path / "killed")
    again = execute(recipe, store=tmp_path / "killed")
    assert again.result.digest == run.result.digest


def test_a_network_in_a_state_is_the_network() -> None:
    small = Magnitude(macs=0.4)(WHOLE)
    kept = decode_state(encode_state({"step": 0, "network": packed(small)}))
    assert kept is not None
    again: Network = unpacked(kept["network"])
    assert again.edits == small.edits
    assert network_digest(again) == network_digest(small)


@given(st.sampled_from(["cubic", "linear", "geometric"]), st.floats(0.01, 1.0), st.integers(1, 20))
def test_the_cost_only_falls_and_ends_at_the_budget(pace: Any, final: float, rounds: int) -> None:
    shares = [remaining(pace, number / rounds, final) for number in range(rounds + 1)]
    assert shares[0] == 1
    assert shares[-1] == pytest.approx(final)
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(shares))
    if pace == "cubic":
        steps = [before - after for before, after in itertools.pairwise(shares)]
        assert all(second <= first + 1e-12 for first, second in itertools.pairwise(steps))
