"""Learned update rules: their maths, the optimiser that runs them, and the training that makes them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, context, network, trained
from torch import Tensor, nn

from mapsto import networks, train
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.meta.optimizer import Optimizer
from mapsto.nn.meta.learned_optimizer import evolution
from mapsto.nn.meta.learned_optimizer.rule import (
    Layout,
    LearnedOptimizer,
    Slots,
    features,
    orthogonal,
    update,
    updating_module,
)
from mapsto.nn.networks.update_rule import DECAYS, FEATURES, UpdateRule, update_rule
from mapsto.nn.train.optimizer import Optimisation
from mapsto.recipe.nodes import from_plain
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump
from mapsto.store import Store

pytestmark = pytest.mark.usefixtures("trusted")


def rule(seed: int = 0, *, dtype: torch.dtype = torch.float32, nominal: str = "orthogonal") -> UpdateRule:
    """A rule with random weights in its output too."""
    torch.manual_seed(seed)
    found = update_rule(nominal=nominal).to(dtype)
    assert isinstance(found, UpdateRule)
    nn.init.normal_(found.output.weight, std=0.3)
    nn.init.normal_(found.output.bias, std=0.3)
    return found


def as_network(module: nn.Module) -> Network:
    return networks.update_rule()().with_module(module)


# -- the rule's maths


def fresh(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> Slots:
    """What a rule remembers before the first step."""
    count = sum(math.prod(shape) for shape in shapes)
    like: dict[str, Any] = {"dtype": dtype}
    return Slots(torch.zeros(len(DECAYS), count, **like), torch.zeros(count, **like), torch.zeros(len(shapes), **like))


def singular(matrix: Tensor) -> Tensor:
    """The matrix whose singular values are those of five Newton-Schulz steps, by a decomposition."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ values.diag() @ right


def reference(at: UpdateRule, parameters: list[Tensor], history: list[list[Tensor]], share: float) -> list[Tensor]:
    """The changes after the gradients of `history`, written down tensor by tensor from the definitions."""
    steps = len(history)
    found: list[Tensor] = []
    for number, w in enumerate(parameters):
        gradients = [gradients[number] for gradients in history]
        g = gradients[-1]

        def averaged(values: list[Tensor], decay: float) -> Tensor:
            weights = [decay ** (len(values) - 1 - k) for k in range(len(values))]
            return sum(x * v for x, v in zip(weights, values, strict=True)) / sum(weights)  # pyright: ignore[reportReturnType]

        fast, slow = averaged(gradients, 0.9), averaged(gradients, 0.99)
        v = averaged([x**2 for x in gradients], 0.99)
        cosines = [torch.zeros((), dtype=w.dtype)]
        for k in range(1, steps):
            before = averaged(gradients[:k], 0.9)
            cosines.append(torch.cosine_similarity(gradients[k].flatten(), before.flatten(), dim=0))
        trend = sum(0.1 * 0.9 ** (steps - 1 - k) * x for k, x in enumerate(cosines))
        columns, rows = w.shape[-1], w.shape[0]
        weight = float(w.ndim > 1)
        features = torch.stack(
            [
                torch.as_tensor(value, dtype=w.dtype)
                for value in [
                    weight * (math.log(columns) - 4) / 4,
                    (math.log(rows) - 4) / 4,
                    weight,
                    (torch.log((w**2).mean() + 1e-6) + weight * math.log(columns)) / 4,
                    torch.log((fast**2 / v).mean() + 1e-4) / 4,
                    torch.log((slow**2 / v).mean() + 1e-4) / 4,
                    torch.log((g**2).mean() / v.mean() + 1e-4) / 4,
                    cosines[-1],
                    2 * trend,
                    share,
                    math.log(share + 0.01) / 4,
                    *(math.tanh(steps / time - 1) for time in (3, 30)),
                ]
            ]
        )
        magnitude, latest, slower, *weights = at(features.clamp(-4, 4)[None])[0]
        blend = fast + (0.1 + latest) * (g - fast) + slower * (slow - fast)
        adam, plain = blend / v.sqrt(), blend / v.mean().sqrt()
        nominal = singular(blend) * math.sqrt(max(rows, columns)) if weight else adam
        mixed = (1 + weights[0]) * nominal + weights[1] * adam + weights[2] * plain
        length = columns**-0.5 if weight else 0.05
        found.append(-at.rate * length * torch.exp(torch.tanh(magnitude)) * mixed)
    return found


def test_an_update_is_that_of_the_definitions() -> None:
    at = rule(dtype=torch.float64)
    shapes = [(3, 4), (5,), (6, 2)]
    parameters = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    history = [[torch.randn_like(parameter) for parameter in parameters] for _ in range(4)]
    layout = Layout.of(shapes)
    flat = torch.cat([parameter.flatten() for parameter in parameters])
    slots, change = fresh(shapes), torch.zeros_like(flat)
    share = flat.new_full((3,), 0.7)
    for step, gradients in enumerate(history, 1):
        gradient = torch.cat([g.flatten() for g in gradients])
        change, slots = update(at, flat, gradient, slots, step, share, layout)
    with torch.no_grad():
        expected = torch.cat([part.flatten() for part in reference(at, parameters, history, 0.7)])
    torch.testing.assert_close(change.detach(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (1, 5), (4, 4)])
def test_orthogonal_matrices_keep_their_singular_vectors(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(orthogonal(matrix), singular(matrix), rtol=1e-9, atol=1e-9)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


def test_an_untrained_rule_is_adam() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    theirs = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    theirs.load_state_dict(ours.state_dict())
    learned = LearnedOptimizer(ours.parameters(), update_rule(nominal="adam", rate=0.5).double(), lr=1.0)
    adam = torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.9, 0.99))
    for _ in range(20):
        x = torch.randn(8, 4, dtype=torch.float64)
        for module, optimizer in ((ours, learned), (theirs, adam)):
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    for ours_tensor, theirs_tensor in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_tensor, theirs_tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("nominal", ["adam", "orthogonal"])
def test_units_in_another_order_move_alike(nominal: str) -> None:
    at = rule(dtype=torch.float64, nominal=nominal)
    sizes = [(3, 4), (5,), (2, 2)]
    parameters = [torch.randn(size, dtype=torch.float64) for size in sizes]
    gradients = [torch.randn(size, dtype=torch.float64) for size in sizes]

    def moved(order: list[int], places: list[tuple[Tensor, ...]]) -> list[Tensor]:
        tensors = [nn.Parameter(parameters[n][torch.meshgrid(*places[n], indexing="ij")]) for n in order]
        optimizer = LearnedOptimizer(tensors, at, lr=1.0)
        for _ in range(3):
            for n, tensor in zip(order, tensors, strict=True):
                tensor.grad = gradients[n][torch.meshgrid(*places[n], indexing="ij")]
            optimizer.step()
        back = dict(zip(order, tensors, strict=True))
        inverse = [torch.meshgrid(*(place.argsort() for place in places[n]), indexing="ij") for n in range(len(sizes))]
        return [back[n].detach()[inverse[n]] for n in range(len(sizes))]

    straight = [tuple(torch.arange(side) for side in size) for size in sizes]
    shuffled = [tuple(torch.randperm(side) for side in size) for size in sizes]
    for one, other in zip(moved([0, 1, 2], straight), moved([2, 0, 1], shuffled), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_scale_of_gradients_does_not_matter() -> None:
    at = rule(dtype=torch.float64)
    gradient, parameters = torch.randn(12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    share, shapes = gradient.new_ones(1), [(3, 4)]
    one, _ = update(at, parameters, gradient, fresh(shapes), 1, share, Layout.of(shapes))
    other, _ = update(at, parameters, 1e4 * gradient, fresh(shapes), 1, share, Layout.of(shapes))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_a_rule_sees_how_far_its_rate_has_fallen() -> None:
    at = rule()

    def steps(rates: list[float]) -> list[Tensor]:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(3, 4))
        optimizer, found = LearnedOptimizer([weight], at, lr=1.0), []
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            before, weight.grad = weight.detach().clone(), torch.randn(3, 4)
            optimizer.step()
            found.append((weight.detach() - before) / max(rate, 1e-9))
        return found

    rising, high = steps([0.0, 0.5]), steps([0.0, 2.0])
    torch.testing.assert_close(rising[1], high[1], rtol=1e-4, atol=1e-5)  # whatever the rate, it is the highest so far
    held, falling = steps([1.0, 1.0]), steps([1.0, 0.5])
    assert torch.equal(held[0], falling[0])
    assert not torch.allclose(held[1], falling[1], rtol=1e-2)


def test_features_and_steps_are_bounded_whatever_the_gradient() -> None:
    shapes: list[tuple[int, ...]] = [(2, 3)]
    share = torch.ones(1)
    for gradient in (torch.zeros(6), torch.tensor([1e18, 0, 0, 0, 0, 0]), torch.full((6,), 1e-30)):
        slots = fresh(shapes, torch.float32)
        found, *_ = features(torch.zeros(6), gradient, slots, 1, share, Layout.of(shapes))
        assert found.shape == (1, FEATURES)
        assert bool(found.isfinite().all())
        assert float(found.abs().max()) <= 4
        change, _ = update(rule().requires_grad_(False), torch.zeros(6), gradient, slots, 1, share, Layout.of(shapes))
        assert bool(change.isfinite().all())
        assert float(change.abs().max()) < 1


def test_large_networks_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    import mapsto.nn.meta.learned_optimizer.rule as module

    def moved() -> list[Tensor]:
        torch.manual_seed(1)
        tensors = [nn.Parameter(torch.randn(size)) for size in ((7, 9), (9,), (11, 3))]
        optimizer = LearnedOptimizer(tensors, rule(), lr=1.0)
        for tensor in tensors:
            tensor.grad = torch.randn_like(tensor)
        optimizer.step()
        return [tensor.detach() for tensor in tensors]

    whole = moved()
    monkeypatch.setattr(module, "_PACK", 40)
    for one, other in zip(whole, moved(), strict=True):
        torch.testing.assert_close(one, other)


def test_parameters_without_a_gradient_stay_and_keep_their_age() -> None:
    torch.manual_seed(0)
    first, second = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(3))
    optimizer = LearnedOptimizer([first, second], rule(), lr=1.0, weight_decay=0.1)
    first.grad = torch.ones(4)
    optimizer.step()
    assert second.tolist() == [1.0] * 3
    second.grad = torch.ones(3)
    optimizer.step()
    assert [optimizer.state[tensor]["step"] for tensor in (first, second)] == [2, 1]


# -- as an optimiser of training mappings


def supervised(**fields: Any) -> Any:
    given: dict[str, Any] = {"data": Corners(), "epochs": 3, "batch_size": 16, "optimizer": "learned"}
    return train.supervised(**(given | {"rule": as_network(rule())} | fields))


@pytest.mark.parametrize("fields", [{}, {"ema": 0.9, "clip": 1.0, "schedule": "plateau"}])
def test_resumed_training_is_bit_identical(fields: dict[str, Any]) -> None:
    whole, metrics = trained(supervised(**fields), network(4))
    for stop in (1, 4):
        again, metrics_again = trained(supervised(**fields), network(4), stop=stop)
        assert metrics_again == metrics
        assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_bfloat16_parameters_resume_with_what_the_rule_remembered() -> None:
    def run(stop: bool) -> Tensor:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(4, 4).bfloat16())
        optimizer = LearnedOptimizer([weight], rule(), lr=1.0)
        for step in range(6):
            torch.manual_seed(step)
            weight.grad = torch.randn(4, 4).bfloat16()
            optimizer.step()
            if stop and step == 2:
                kept = optimizer.state_dict()
                optimizer = LearnedOptimizer([weight], rule(), lr=1.0)
                optimizer.load_state_dict(kept)
        assert optimizer.state[weight]["momenta"].dtype == torch.float32
        return weight.detach()

    assert torch.equal(run(False), run(True))


def test_it_learns_and_its_rate_is_a_multiplier() -> None:
    untrained = networks.update_rule(nominal="adam", rate=0.5)()
    _, metrics = trained(supervised(rule=untrained, epochs=8, weight_decay=0.0), network(4))
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"] / 2
    weights = []
    for fields in (
        {"rule": networks.update_rule(nominal="adam", rate=1.0)(), "learning_rate": 0.1},
        {"rule": untrained, "learning_rate": 0.2},
    ):
        result, _ = trained(supervised(**fields, weight_decay=0.0), network(4))
        weights.append(result.tensors["conv.weight"])
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


def test_every_training_mapping_takes_it() -> None:
    from mapsto import adapt, datasets, distill, meta

    digits = datasets.digits(size=16)
    episodes = datasets.episodes(data=datasets.subset(data=digits, per_class=8), ways=3, queries=2)
    conv = networks.conv4(channels=1, size=16, width=4)
    fields: dict[str, Any] = {"optimizer": "learned", "rule": networks.update_rule()}
    few = datasets.subset(data=digits, per_class=4)
    for mapping in (
        meta.protonet(tasks=episodes, steps=2, **fields),
        adapt.finetune(data=few, epochs=1, folds=None, **fields),
        distill.logits(teacher=conv, tasks=episodes, steps=2, **fields),
    ):
        before = conv(seed=0)
        after = context().apply(mapping, before)
        name = "features.0.0.weight"
        assert not torch.equal(before.tensors[name], after.tensors[name])


def test_it_is_written_to_yaml_and_read() -> None:
    recipe = parse_recipe(
        "schema: 1\nsteps:\n"
        "  - networks.conv4: {channels: 1, size: 16, width: 4, classes: 10}\n"
        "  - train.supervised:\n"
        "      data: {digits: {size: 16}}\n"
        "      optimizer: learned\n"
        "      rule: [networks.update_rule: {}, meta.optimizer: {steps: 2}]\n"
    )
    assert parse_recipe(dump(recipe)).steps == recipe.steps


# -- bad input


def test_a_rule_is_needed_and_only_there() -> None:
    with pytest.raises(SpecError, match="optimizer is learned, but there is no rule"):
        train.supervised(data=Corners(), optimizer="learned")
    with pytest.raises(SpecError, match="there is a rule, but optimizer is sgd"):
        train.supervised(data=Corners(), rule=networks.update_rule())
    with pytest.raises(SpecError, match="rule was not resolved"):
        Optimisation(optimizer="learned", rule=networks.update_rule()).make(nn.Linear(2, 2))


def test_another_network_is_no_rule() -> None:
    with pytest.raises(DomainError, match=r"no update rule but comes from .*Small"):
        trained(supervised(rule=network(4)), network(4))
    with pytest.raises(DomainError, match="no update rule"):
        from_plain(Optimizer, Optimizer.contract)(network(4))
    broken = networks.update_rule()()
    tensors = {name: torch.full_like(tensor, math.nan) for name, tensor in broken.tensors.items()}
    with pytest.raises(DomainError, match="NaN"):
        updating_module(dataclasses.replace(broken, tensors=tensors))


def test_bad_arguments_are_named() -> None:
    for arguments in ({"hidden": 0}, {"nominal": "none"}, {"rate": 0.0}, {"rate": math.nan}):
        with pytest.raises(DomainError, match=next(iter(arguments))):
            update_rule(**arguments)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DomainError, match="lr is -1"):
        LearnedOptimizer([nn.Parameter(torch.ones(2))], rule(), lr=-1.0)


# -- learning a rule


def distribution(pairs: int = 2, *, regression: float = 0.0, convolutional: float = 0.5) -> evolution.Distribution:
    return evolution.Distribution(
        images=evolution.Images(Corners().open()),
        pairs=pairs,
        horizon=8,
        width=6,
        regression=regression,
        convolutional=convolutional,
    )


def test_optimisees_are_the_networks_that_they_say() -> None:
    random = np.random.default_rng(0)
    plain = evolution.Optimisee(inputs=(5,), hidden=(4,), outputs=3, activation="tanh")
    parameters, x = plain.initial(random, 1)[0], torch.randn(7, 5)
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    nn.utils.vector_to_parameters(parameters, module.parameters())
    torch.testing.assert_close(plain(parameters[None], x[None])[0], module(x))

    conv = evolution.Optimisee(inputs=(2, 7, 7), convolutions=(3,), outputs=4, norm=True)
    parameters, x = conv.initial(random, 1)[0], torch.randn(6, 2, 7, 7)
    weight, bias, gain, head, offset = (
        part.view(shape) for part, shape in zip(parameters.split(conv.layout.sizes), conv.shapes, strict=True)
    )
    assert gain.tolist() == [1.0] * 3
    assert bias.tolist() == [0.0] * 3
    seen = nn.functional.conv2d(x, weight.view(3, 2, 3, 3), padding=1, stride=2)
    seen = nn.functional.batch_norm(seen, None, None, gain, bias, training=True).relu().flatten(1)
    torch.testing.assert_close(conv(parameters[None], x[None])[0], seen @ head.T + offset, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regression", [0.0, 1.0])
def test_problems_are_drawn_again_the_same(regression: float) -> None:
    for seed in range(4):
        one, other = (distribution(regression=regression).draw(np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(one.first, other.first)
        assert torch.equal(one.inputs, other.inputs)
        assert one.network == other.network
        assert 2 <= one.horizon <= 8
        loss = one.loss(one.first, one.inputs, one.targets)
        assert loss.shape == one.naive.shape == (2,)
        assert bool(loss.isfinite().all())


def population(
    at: UpdateRule, estimator: evolution.Estimator, *, pairs: int = 2, **fields: Any
) -> evolution.Population:
    given: dict[str, Any] = {"groups": 1, "unroll": 3, "sigma": 1e-3, "held_out": False}
    return evolution.Population(
        at,
        distribution(pairs, convolutional=0.0),
        lambda group, episode: np.random.default_rng([group, episode]),
        {},
        estimator=estimator,
        device=torch.device("cpu"),
        **(given | fields),
    )


def gradient(at: UpdateRule, estimator: evolution.Estimator, seed: int = 0, **fields: Any) -> Tensor:
    at.zero_grad()
    people = population(at, estimator, **fields)
    torch.manual_seed(seed)
    people.loss(0).backward()
    return torch.cat([parameter.grad.flatten() for parameter in at.parameters() if parameter.grad is not None])


def test_backprop_is_the_slope_of_the_unroll() -> None:
    """Against differences of the same unroll's mean measure, along a random direction."""
    at = rule(3).requires_grad_(True)
    found = gradient(at, "backprop")
    torch.manual_seed(5)
    direction = torch.randn_like(found)
    vector, values = nn.utils.parameters_to_vector(at.parameters()).detach(), []
    for size in (1e-2, -1e-2):
        nn.utils.vector_to_parameters(vector + size * direction, at.parameters())
        people = population(at, "backprop")
        torch.manual_seed(0)
        values.append(float(people.loss(0).detach()))
    nn.utils.vector_to_parameters(vector, at.parameters())
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(found @ direction), rel=0.05)


@pytest.mark.slow
def test_evolution_strategies_point_where_backprop_does() -> None:
    at = rule(3).requires_grad_(True)
    exact = [gradient(at, "backprop", seed, pairs=64) for seed in range(8)]
    for estimator in ("pes", "es"):
        estimates = [gradient(at, estimator, seed, pairs=64) for seed in range(8)]
        mean, wanted = sum(estimates), sum(exact)
        assert isinstance(mean, Tensor)
        assert isinstance(wanted, Tensor)
        assert float(torch.cosine_similarity(mean, wanted, dim=0)) > 0.4


def test_pes_sums_perturbations_over_an_unroll_and_es_does_not() -> None:
    at = rule().requires_grad_(True)
    for estimator in ("pes", "es"):
        people = population(at, estimator, unroll=2)
        torch.manual_seed(0)
        people.loss(0)
        group = people.state()["0"]
        first, second = group["point"].chunk(2)
        assert torch.equal(first, second) == (estimator == "es")
        assert bool(group["shift"].any()) == (estimator == "pes")


def test_a_problem_ends_at_its_horizon_or_where_it_diverges() -> None:
    at = rule().requires_grad_(True)
    people = population(at, "pes", unroll=100)
    people.loss(0)
    assert people.state()["0"]["episode"] == 1
    assert people.state()["0"]["step"] == 0
    with torch.no_grad():
        at.output.weight.fill_(1e38)
    people = population(at, "pes", unroll=2)
    assert float(people.loss(0).detach()) <= 3
    assert people.state()["0"]["episode"] == 1


@pytest.mark.parametrize("estimator", ["pes", "es", "backprop"])
@pytest.mark.parametrize("measured_on", ["training", "validation"])
def test_learning_resumes_bit_identically(estimator: str, measured_on: str) -> None:
    fields: dict[str, Any] = Optimizer.contract | {"data": Corners(), "estimator": estimator, "steps": 6}
    process = Optimizer(**fields, measured_on=measured_on)
    value = networks.update_rule(hidden=4)(seed=0)
    whole, metrics = trained(process, value)
    again, metrics_again = trained(process, value, stop=3)
    assert metrics_again == metrics
    assert any(not torch.equal(whole.tensors[name], value.tensors[name]) for name in value.tensors)
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_the_best_rule_on_wider_networks_is_kept_be_it_the_untrained() -> None:
    fields: dict[str, Any] = Optimizer.contract | {
        "data": Corners(),
        "steps": 4,
        "epoch": 2,
        "horizon": 20,
        "validations": 2,
    }
    value = networks.update_rule(hidden=4)(seed=0)
    spoilt, metrics = trained(Optimizer(**fields, learning_rate=1e3), value)
    assert all("val_loss" in row for row in metrics if "epoch" in row)
    assert all(torch.equal(spoilt.tensors[name], value.tensors[name]) for name in value.tensors)
    whole, _ = trained(Optimizer(**fields), value)
    again, _ = trained(Optimizer(**fields), value, stop=3)
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_a_learned_rule_survives_the_store(tmp_path: Path) -> None:
    value = as_network(rule())
    digest = Store(tmp_path).save(value)
    loaded = Store(tmp_path).load(digest)
    one, _ = trained(supervised(rule=value), network(4))
    other, _ = trained(supervised(rule=loaded), network(4))
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


@pytest.mark.slow
def test_learning_beats_the_untrained_rule() -> None:
    """A rule that begins at a tenth of the usual rate finds that longer steps are better."""
    value = networks.update_rule(hidden=4, rate=5e-3)(seed=0)
    fields: dict[str, Any] = {"data": Corners(), "horizon": 20, "unroll": 10, "pairs": 4, "groups": 4, "width": 8}
    better = context().apply(Optimizer(**fields, steps=60, learning_rate=0.05, schedule="constant"), value)
    losses = {}
    for name, at in (("untrained", value), ("learned", better)):
        _, metrics = trained(supervised(rule=at, weight_decay=0.0, epochs=5), network(4))
        losses[name] = metrics[-1]["train_loss"]
    assert losses["learned"] < losses["untrained"] - 0.1
