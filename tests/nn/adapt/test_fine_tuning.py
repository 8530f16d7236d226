"""What keeps fine-tuning from over-fitting, each by its numbers, and how it stops, goes back and goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, context, network, trained
from torch import nn

from mapsto import adapt
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.mappings.adapt.finetune import Finetune
from mapsto.nn.adapt.batch_norm_reestimation import reestimate
from mapsto.nn.adapt.blocks import blocks_of
from mapsto.nn.adapt.fast_gradient_sign import attacked
from mapsto.nn.adapt.fine_tuning import FineTuning
from mapsto.nn.adapt.fold_training import folds_to_train
from mapsto.nn.adapt.rate_range_test import LOWEST, has_blown_up, proposed, rates
from mapsto.nn.network.examples import example_batch
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted")

FEW, OTHERS = Corners(per_class=4), Corners(seed=1)


def tuned(ctx: Context, value: Network, **fields: Any) -> tuple[FineTuning, list[Mapping[str, float]]]:
    """A fine-tuning at its end, and the metrics of each step."""
    settings: dict[str, Any] = {"data": FEW, "epochs": 4, **fields}
    process = Finetune(**settings)
    ctx.seed_everything("start")
    live, items, metrics = process.open(value, None, ctx), process.items(value, ctx), []
    while not live.done:
        ctx.seed_everything(live.step)
        metrics += [row for _, row in live.advance(items[live.step])]
    return live, metrics


# ------------------------------------------------------------------------------------------------------------------ the remedies


def test_l2_sp_alone_draws_weights_back_to_where_they_began() -> None:
    """SGD without momentum at rate η on α/2 ‖w − w⁰‖²: the distance shrinks by 1 − ηα a step. The head is not drawn anywhere."""
    from mapsto.nn.adapt.l2_sp import penalty

    w, before = torch.tensor([3.0, -1.0], requires_grad=True), torch.tensor([1.0, 1.0])
    value = penalty({"w": w, "head": torch.ones(2, requires_grad=True)}, {"w": before}, 0.2)
    value.backward()
    assert value.item() == pytest.approx(0.1 * 8)
    assert w.grad is not None
    assert w.grad.tolist() == pytest.approx([0.4, -0.4])


def test_l2_sp_keeps_the_embedding_nearer_and_leaves_decay_to_the_head() -> None:
    value = network(4)

    def moved(**fields: Any) -> float:
        result = trained(Finetune(data=FEW, folds=None, epochs=20, stop_after=99, **fields), value)[0]
        return float((result.tensors["conv.weight"] - value.tensors["conv.weight"]).norm())

    assert moved(l2_sp=10.0) < 0.5 * moved()
    live, _ = tuned(context(), value, l2_sp=0.1, weight_decay=0.5)
    groups = live.training._optimizer.param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    module = live.training.module
    assert decays[id(module.get_parameter("conv.weight"))] == 0
    assert decays[id(module.get_parameter("classifier.weight"))] == 0.5


def test_each_block_learns_at_a_share_of_the_rate_of_the_one_above() -> None:
    live, metrics = tuned(context(), network(4), layer_decay=0.5, folds=None, schedule="constant", epochs=1)
    module = live.training.module
    rate = {id(p): group["lr"] for group in live.training._optimizer.param_groups for p in group["params"]}
    found = {name: rate[id(parameter)] for name, parameter in module.named_parameters()}
    assert metrics[0]["lr"] == 1e-3
    assert found == {
        "conv.weight": 5e-4,  # with its norm one block below the head
        "norm.weight": 5e-4,
        "norm.bias": 5e-4,
        "classifier.weight": 1e-3,
        "classifier.bias": 1e-3,
    }


class Tower(nn.Module):
    """Blocks in a list, registered before what is called first."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(4))
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3)])
        self.stem = nn.Linear(4, 4)
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x + self.positions)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x)


def test_blocks_come_in_the_order_of_their_calls() -> None:
    assert [block[0] for block in blocks_of(Tower(), torch.ones(2, 4))] == [
        "positions",
        "layers.0.0.weight",
        "layers.1.0.weight",
        "layers.2.0.weight",
        "classifier.weight",
    ]
    assert blocks_of(network(4).module(), example_batch(network(4))) == [
        ("conv.weight", "norm.weight", "norm.bias"),
        ("classifier.weight", "classifier.bias"),
    ]


@pytest.mark.slow
def test_the_blocks_of_efficientnet_are_its_stem_its_sixteen_blocks_and_its_last_layers() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    from mapsto import networks

    value = networks.efficientnet_lite0(pretrained=False, size=64, classes=10)(seed=0)
    blocks = blocks_of(value.module(), example_batch(value))
    assert len(blocks) == 19
    assert [block[0].split(".")[1] for block in blocks[:2]] == ["_conv_stem", "_blocks"]
    assert blocks[-1] == ("classifier.weight", "classifier.bias")
    assert {name for block in blocks for name in block} == {name for name, _ in value.module().named_parameters()}


def test_the_head_learns_first_and_the_block_below_it_when_it_is_its_turn() -> None:
    value = network(4)
    fields: dict[str, Any] = {"folds": None, "unfreeze": 2, "begin": "random", "batch_size": 8, "stop_after": 99}
    for epochs, same in ((2, True), (3, False)):  # with two steps an epoch
        result = trained(Finetune(data=FEW, epochs=epochs, **fields), value)[0]
        assert torch.equal(result.tensors["conv.weight"], value.tensors["conv.weight"]) == same
        assert not torch.equal(result.tensors["classifier.weight"], value.tensors["classifier.weight"])


def test_statistics_are_blended_by_the_number_of_examples() -> None:
    norm = nn.BatchNorm1d(1)
    inputs = np.array([[4.0], [8.0]], np.float32)
    reestimate(norm, inputs, Preprocessing(kind="none"), prior=6)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.item() == pytest.approx(0.75 * 0 + 0.25 * 6)
    assert norm.running_var.item() == pytest.approx(0.75 * 1 + 0.25 * 8)  # 8 is the unbiased variance of the two
    assert norm.momentum == 0.1


def test_batch_norms_keep_are_estimated_anew_or_run_on() -> None:
    value = network(4)
    before = value.tensors["norm.running_mean"]
    means = {
        kind: tuned(context(), value, batch_norm=kind, epochs=1, folds=None)[0].result().tensors["norm.running_mean"]
        for kind in ("keep", "reestimate", "train")
    }
    assert torch.equal(means["keep"], before)
    assert not torch.equal(means["reestimate"], before)
    assert not torch.equal(means["train"], means["reestimate"])


def test_an_adversarial_example_raises_the_loss_within_its_bounds() -> None:
    before = Preprocessing(channels=1, size=(2, 2), mean=(0.5,), std=(0.25,))
    x = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2
    slope = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    moved = attacked(x, lambda each: (each * slope).sum(), 0.1, before)
    assert float((moved - x).abs().max()) <= 0.4 + 1e-6
    assert float(moved.abs().max()) <= 2
    assert bool((((moved - x) * slope) >= -1e-6).all())


def test_adapters_learn_alone() -> None:
    value = adapt.lora(rank=1)(network(4))
    result = trained(Finetune(data=FEW, epochs=2, folds=None, freeze="weights", stop_after=99), value)[0]
    changed = {name for name, tensor in value.tensors.items() if not torch.equal(tensor, result.tensors[name])}
    assert changed == {"conv.lora_a", "conv.lora_b", "classifier.weight", "classifier.bias"}
    with pytest.raises(DomainError, match=r"no adapters(.|\n)*adapt\.lora"):
        trained(Finetune(data=FEW, freeze="weights"), network(4))


# ------------------------------------------------------------------------------------------------------------------ the rate


def test_the_range_test_proposes_a_tenth_of_where_the_loss_turns() -> None:
    """Gradient descent on 50 x² from noisy gradients, which diverges above a rate of 0.02."""
    random = np.random.default_rng(0)
    x, losses, tried = 1.0, list[float](), list[float]()
    for rate in rates():
        tried.append(rate)
        losses.append(50 * x * x)
        if has_blown_up(losses):
            break
        x -= rate * 100 * (x + random.normal(scale=0.1))
    rate = proposed(tried, [*losses[1:], losses[-1]])
    assert 1e-4 <= rate <= 5e-3


def test_a_rate_that_is_found_is_learnt_at_and_shown() -> None:
    ctx = context()
    live, metrics = tuned(ctx, network(4), learning_rate="auto", folds=None, begin="random", epochs=10)
    chosen = live.snapshot()["chosen"]
    assert metrics[0]["lr"] == chosen["learning_rate"] > LOWEST
    assert metrics[-1]["train_loss"] < 0.7 * metrics[0]["train_loss"]
    assert any("by a range test" in text for text in ctx.notes)
    (chart,) = live.account()["charts"]
    assert chart["log_x"]
    assert chart["curves"]["loss"] == [chosen["rates"], chosen["losses"]]


@pytest.mark.parametrize("begin", ["random", "probe"])
def test_a_run_that_diverges_goes_back_at_a_lower_rate_and_says_so(begin: Any) -> None:
    ctx = context()
    fields: dict[str, Any] = {"learning_rate": 1e4, "begin": begin, "epochs": 25, "batch_size": 8, "stop_after": 99}
    live, metrics = tuned(ctx, network(4), folds=None, schedule="constant", **fields)
    result = live.result()
    assert all(bool(tensor.isfinite().all()) for tensor in result.tensors.values())
    assert metrics[-1]["lr"] < 1e4
    assert metrics[-1]["lr"] == pytest.approx(1e4 * 10.0 ** -len(ctx.warnings))
    assert "training diverged at step" in ctx.warnings[0]
    assert "at a tenth of that rate" in ctx.warnings[0]
    assert "held_out" not in live.account()["gap"]


def test_a_run_that_diverges_is_resumed_to_the_same_bits() -> None:
    process = Finetune(data=FEW, learning_rate=1e4, epochs=12, batch_size=8, stop_after=99)
    whole, metrics = trained(process, network(4))
    lowered = next(place for place, row in enumerate(metrics) if "train_loss" not in row or row["lr"] < 1e4)
    for stop in (lowered, lowered + 2):
        assert network_digest(trained(process, network(4), stop=stop)[0]) == network_digest(whole)


# ------------------------------------------------------------------------------------------------------------------ when it stops


def test_its_own_examples_in_folds_say_when_to_stop() -> None:
    """Labels that are noise cannot be learnt: the beginning stays the result, and the note has the figures."""
    ctx = context()
    live, metrics = tuned(ctx, network(), data=Corners(labels="noise"), epochs=50, stop_after=3, learning_rate=0.01)
    assert len(metrics) <= 3 + live.training.figures["epoch"]
    assert all(row["val_loss"] > live.training.start_figures["val_loss"] - 1e-9 for row in metrics) == (
        live.training.figures["epoch"] == 0
    )
    told = live.account()["gap"]
    assert told["held_out_by"] == "cross-validation (3 folds, 48 examples)"
    assert told["training"]["examples"] == 48
    assert told["held_out"]["loss"] == pytest.approx(
        min([told["start"]["loss"], *(row["val_loss"] for row in metrics)])
    )
    assert any("by cross-validation (3 folds, 48 examples)" in text for text in ctx.notes)


def test_no_fold_judges_by_what_it_has_learnt() -> None:
    labels = np.repeat(np.arange(5), [1, 2, 3, 4, 30])
    places = folds_to_train(labels, 3)
    judged = np.concatenate([judge for _, judge in places])
    assert sorted(judged.tolist()) == list(range(1, 40))  # the one that is alone in its class is always learnt from
    for learn, judge in places:
        assert not set(learn.tolist()) & set(judge.tolist())
        assert set(labels[learn].tolist()) == set(range(5))


def test_one_example_a_class_leaves_it_to_the_training_loss() -> None:
    live, metrics = tuned(context(), network(), data=Corners(per_class=1), epochs=3, begin="centroid")
    assert "val_loss" not in metrics[-1]
    assert "held_out" not in live.account()["gap"]


def test_a_fine_tuning_with_everything_is_resumed_to_the_same_bits() -> None:
    fields: dict[str, Any] = {
        "layer_decay": 0.7,
        "l2_sp": 0.1,
        "unfreeze": 1,
        "batch_norm": "reestimate",
        "adversarial": 0.05,
        "dropout": 0.2,
        "smoothing": 0.1,
        "ema": 0.9,
        "learning_rate": "auto",
    }
    process = Finetune(data=FEW, epochs=5, **fields)
    whole, metrics = trained(process, network())
    assert len(metrics) >= 3
    assert math.isfinite(metrics[-1]["val_loss"])
    assert network_digest(trained(process, network(), stop=2)[0]) == network_digest(whole)


def test_a_plateau_goes_back_to_the_best_epoch_with_all_folds() -> None:
    """A rate that is far too high makes everything worse: training begins again where it was best, ten times as slow."""
    ctx = context()
    process = Finetune(data=Corners(labels="noise"), learning_rate=0.5, patience=1, epochs=3, stop_after=99)
    ctx.seed_everything("start")
    live, items = process.open(network(), None, ctx), process.items(network(), ctx)
    assert live._folds is not None
    parts = [part.training for part in live._folds._parts]
    start, begun = live.training.held()["tensors"], [part.held()["tensors"] for part in parts]
    for step in range(2):
        ctx.seed_everything(step)
        live.advance(items[step])
        if step == 0:
            assert live.training.went_back
            assert live.training.lowered == pytest.approx(0.1)
            assert all(torch.equal(tensor, live.training.held()["tensors"][name]) for name, tensor in start.items())
    for part, before in zip(parts, begun, strict=True):
        moved = (part.held()["tensors"]["classifier.bias"] - before["classifier.bias"]).abs().max()
        assert 0 < float(moved) <= 0.051  # one step of Adam at 0.05, from where each began


@pytest.mark.parametrize("turned", [False, True], ids=["of these examples", "of others"])
def test_a_head_for_the_same_classes_stays_unless_new_ones_do_better_on_unseen_folds(turned: bool) -> None:
    """What the folds say is of heads fitted anew, and would not hold for one that was made for other examples."""
    made = adapt.linear(data=FEW, strength=100.0)(network(4), seed=0)
    module = made.module()
    if turned:
        weight = module.get_parameter("classifier.weight")
        weight.data = weight.data.roll(1, 0)  # each class has another's scores
    value, ctx = made.with_module(module), context()
    live, _ = tuned(ctx, value, epochs=1, learning_rate=1e-12, schedule="constant")
    replaced = any("the head that the network had is replaced by a new one" in text for text in ctx.notes)
    same = torch.allclose(live.result().tensors["classifier.weight"], value.tensors["classifier.weight"], atol=1e-6)
    assert (replaced, same) == (turned, not turned)
    gap = live.account()["gap"]
    assert gap["training"]["accuracy"] == 100


@pytest.mark.parametrize(("rate", "worse"), [(0.2, True), (0.01, False)])
def test_training_that_makes_its_own_examples_worse_is_warned_of(rate: float, worse: bool) -> None:
    """Nothing is held out by which a better epoch could be kept."""
    ctx = context()
    process = Finetune(data=FEW, folds=None, epochs=6, learning_rate=rate, smoothing=0.9)
    ctx.seed_everything("start")
    live, items = process.open(network(), None, ctx), process.items(network(), ctx)
    while not live.done:
        live.advance(items[live.step])
    assert worse == any("training made the network worse: right on" in said for said in ctx.warnings)
