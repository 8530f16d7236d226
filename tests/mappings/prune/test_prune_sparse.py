"""Penalties that push channels to zero before they are pruned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.prunable import DATA, TASKS, Odd, context, groups_of, importance, vgg
from tests.mappings.small import PREPROCESSING, trained

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.distill.logits import Logits
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.meta.protonet import Protonet
from mapsto.mappings.prune.bn_scale import BnScale
from mapsto.mappings.prune.gradual import Gradual
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.train.sparse import Sparse
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.network.build import network_of
from mapsto.nn.prune.sparsity_penalty import Penalty
from mapsto.store import network_digest

WHOLE = vgg((8,), (12,))
HALF = Magnitude(macs=0.4, ranking="per_layer")


def training(**fields: Any) -> Supervised:
    return Supervised(**{"data": DATA, "epochs": 3, "batch_size": 40, "learning_rate": 0.05, **fields})


def sparse(epochs: int = 3, **fields: Any) -> Sparse:
    return Sparse(**{"train": training(epochs=epochs), **fields})


def test_the_sums_are_those_of_the_channels() -> None:
    module, groups = groups_of(WHOLE)
    penalty = Penalty(module, groups)
    squares = importance(Magnitude(macs=0.5, normalise=False), WHOLE)
    assert penalty.group_lasso().item() == pytest.approx(
        sum(np.sqrt(values).sum() for values in squares.values()), rel=1e-5
    )
    scales = importance(BnScale(macs=0.5), WHOLE)
    assert penalty.batch_norm().item() == pytest.approx(sum(values.sum() for values in scales.values()), rel=1e-5)
    kept = {"features.0": np.arange(8) < 5, "features.4": np.arange(12) < 12}
    assert penalty.squares(kept).item() == pytest.approx(squares["features.0"][5:].sum(), rel=1e-5)


def test_gradients_reach_what_belongs_to_the_channel() -> None:
    module, groups = groups_of(WHOLE)
    Penalty(module, groups).squares({"features.0": np.arange(8) < 7}).mul(0.5).backward()
    own = dict(module.named_parameters())
    first, reader, norm = (own[name] for name in ("features.0.weight", "features.4.weight", "features.1.weight"))
    for tensor, dim in ((first, 0), (reader, 1), (norm, 0)):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad.select(dim, 7), tensor.detach().select(dim, 7))
        assert not tensor.grad.narrow(dim, 0, 7).any()
    assert own["classifier.weight"].grad is None


def test_a_channel_of_zeros_has_a_gradient() -> None:
    module, groups = groups_of(WHOLE)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.zero_()
    Penalty(module, groups).group_lasso().backward()
    assert all(tensor.grad is None or bool(tensor.grad.isfinite().all()) for tensor in module.parameters())


def test_without_strength_it_is_plain_training() -> None:
    expected, steps = trained(training(), WHOLE)
    for fields in ({}, {"penalty": "batch_norm"}):
        found, _ = trained(sparse(strength=0, **fields), WHOLE)
        for name, tensor in expected.tensors.items():
            torch.testing.assert_close(found.tensors[name], tensor, rtol=1e-4, atol=1e-6)
    assert len(steps) == 6


@pytest.mark.parametrize(
    ("fields", "measure"),
    [
        ({"penalty": "group_lasso", "strength": 0.02}, Magnitude(macs=0.5, normalise=False)),
        ({"penalty": "batch_norm", "strength": 0.05}, BnScale(macs=0.5)),
    ],
)
def test_the_penalty_makes_channels_smaller(fields: dict[str, Any], measure: Any) -> None:
    plain, _ = trained(sparse(epochs=20, strength=0), WHOLE)
    pushed, _ = trained(sparse(epochs=20, **fields), WHOLE)
    before, after = importance(measure, plain), importance(measure, pushed)
    for name in before:
        assert after[name].min() / after[name].max() < before[name].min() / before[name].max()
        assert after[name].sum() < before[name].sum()


def test_growing_spares_what_stays() -> None:
    settings: dict[str, Any] = {"epochs": 20, "penalty": "growing", "criterion": HALF, "every": 1}
    pushed, _ = trained(sparse(strength=0.05, **settings), WHOLE)
    gone = {name: values < 0.05 * values.max() for name, values in importance(Magnitude(macs=0.5), pushed).items()}
    pruned = HALF(WHOLE)
    assert gone["features.0"].sum() == 8 - len(pruned.tensors["features.0.weight"])
    assert gone["features.4"].sum() == 12 - len(pruned.tensors["features.4.weight"])
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(HALF(pushed).module()(x), pushed.module()(x), rtol=0.1, atol=0.1)


def test_growing_stops_at_its_ceiling() -> None:
    settings: dict[str, Any] = {"penalty": "growing", "criterion": HALF, "every": 1, "strength": 1.0}
    first, _ = trained(sparse(ceiling=1e-3, **settings), WHOLE)
    constant, _ = trained(sparse(**{**settings, "ceiling": 1e-3, "strength": 5.0}), WHOLE)
    assert network_digest(first) == network_digest(constant)


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("penalty", ["group_lasso", "batch_norm", "growing"])
def test_it_goes_on_wherever_it_was_stopped(penalty: str, stop: int) -> None:
    criterion = HALF if penalty == "growing" else None
    process = sparse(penalty=penalty, criterion=criterion, strength=0.01, every=2)
    undisturbed, metrics = trained(process, WHOLE)
    resumed, again = trained(process, WHOLE, stop=stop)
    assert again == metrics
    assert network_digest(resumed) == network_digest(undisturbed)


def test_a_new_head_is_given_all_the_same() -> None:
    learner = vgg((8,), (12,), classes=None)
    named, _ = trained(sparse(epochs=1), learner)
    assert named.signature.classes == DATA.open().classes


def perceptron(*widths: int) -> Network:
    torch.manual_seed(0)
    arguments = {"inputs": 64, "widths": list(widths), "classes": 10}
    return network_of("mapsto.nn.networks.mlp:mlp", arguments, PREPROCESSING, example=torch.zeros(2, 64))


@pytest.mark.parametrize("stop", [None, 2])
def test_any_training_will_do(stop: int | None) -> None:
    student = Logits(teacher=WHOLE, data=DATA, epochs=2, batch_size=40)
    learnt = Protonet(tasks=TASKS, steps=4)
    learner = vgg((8,), (12,), classes=None)
    for process, value in (
        (sparse(train=student, strength=0.05), WHOLE),
        (sparse(train=learnt, strength=0.05), learner),
    ):
        pushed, metrics = trained(process, value, stop=stop)
        free, without = trained(process.train, value)  # type: ignore[arg-type]
        assert metrics[0]["train_loss"] > without[0]["train_loss"] + 0.1
        before, after = (importance(Magnitude(macs=0.5, normalise=False), net)["features.0"] for net in (free, pushed))
        assert after.sum() < before.sum()
        assert pushed.adaptation == free.adaptation


def test_it_is_a_training_for_rounds() -> None:
    process = Gradual(criterion=Magnitude(macs=0.4), train=sparse(epochs=1), rounds=2)
    resumed, again = trained(process, WHOLE, stop=3)
    whole, metrics = trained(process, WHOLE)
    assert again == metrics
    assert network_digest(resumed) == network_digest(whole)


def test_a_process_without_a_loss_is_refused() -> None:
    rounds = Gradual(criterion=Magnitude(macs=0.4), train=training(epochs=1), rounds=2)
    with pytest.raises(SpecError, match=r"prune\.gradual, which has no loss"):
        sparse(train=rounds).apply(WHOLE, context())


def test_wrong_fields_are_refused() -> None:
    with pytest.raises(SpecError, match=r"train is prune\.magnitude, which is no process"):
        sparse(train=HALF)
    with pytest.raises(SpecError, match="penalty is growing, and there is no criterion"):
        sparse(penalty="growing")
    with pytest.raises(SpecError, match="penalty is group_lasso, and there is a criterion"):
        sparse(criterion=HALF)
    with pytest.raises(SpecError, match=r"evaluate.size, which ranks no channels"):
        sparse(penalty="growing", criterion=Size())
    with pytest.raises(SpecError, match=r"budget of 1.0 ms"):
        sparse(penalty="growing", criterion=Magnitude(latency_ms=1))
    for field, value in (("strength", -1), ("every", 0), ("ceiling", 0), ("penalty", "l0")):
        with pytest.raises(SpecError, match=field):
            sparse(**{field: value})


def test_what_cannot_be_penalised_is_refused() -> None:
    with pytest.raises(DomainError, match="no layers whose channels could be pruned"):
        sparse().apply(perceptron(), context())
    with pytest.raises(DomainError, match="no batch norms whose channels could be pruned"):
        sparse(penalty="batch_norm").apply(perceptron(8), context())
    with pytest.raises(DomainError, match=r"macs = 0.0001 is out of reach: the smallest is"):
        sparse(penalty="growing", criterion=Magnitude(macs=1e-4)).apply(WHOLE, context())
    with pytest.raises(DataError, match="row 3 holds nan"):
        sparse(train=training(data=Odd(what="nan"))).apply(WHOLE, context())
    with pytest.raises(DataError, match="not one sample"):
        sparse(train=training(data=Odd(what="empty"))).apply(WHOLE, context())
