"""Learning from other tasks: regression, embeddings computed before, no labels, other domains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mapsto.context import Context, Numerics
from mapsto.data.sets.arrays import Arrays
from mapsto.data.sets.clustered import Clustered
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.sets.linear_dynamics import LinearDynamics
from mapsto.data.sets.sinusoids import Sinusoids
from mapsto.data.sets.task_augmented import TaskAugmented
from mapsto.data.sets.umtra import Umtra as UmtraTasks
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Adaptation, Dataset, Network, Samples
from mapsto.mapping import Mapping
from mapsto.mappings.meta.cactus import Cactus
from mapsto.mappings.meta.feature_wise import FeatureWise
from mapsto.mappings.meta.maml import Maml
from mapsto.mappings.meta.protonet import Protonet
from mapsto.mappings.meta.umtra import Umtra
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.mlp import Mlp
from mapsto.nn.meta import batch_norm, feature_wise_transform
from mapsto.nn.meta.adaptation_methods import CENTROID
from mapsto.nn.meta.evaluation import accuracies_by_step, episode_metrics, episode_results
from mapsto.store import Store, decode_state, encode_state

DIGITS = Digits(size=12)
EPISODES = EpisodesOf(data=DIGITS, ways=3, shots=1, queries=3)


class Shuffled(Dataset):
    """Digits whose labels are in another order."""

    def fingerprint(self) -> str:
        return "digits"

    def open(self) -> Samples:
        samples = DIGITS.open()
        return dataclasses.replace(samples, labels=np.random.default_rng(0).permutation(samples.labels))


def context() -> Context:
    return Context(seed=0, numerics=Numerics(threads=1))


def conv(width: int = 8) -> Network:
    return context().apply(Conv4(data=DIGITS, width=width, blocks=2), None)


def digest(value: Any, folder: Path) -> str:
    return Store(folder).save(value)


def accuracy(value: Network, tasks: Any, episodes: int = 60) -> float:
    opened = tasks.open()
    results = episode_results(
        value.module(),
        value.signature.preprocessing,
        value.adaptation or CENTROID,
        [opened[number] for number in range(episodes)],
    )
    return float(results.accuracies.mean())


# ---------------------------------------------------------------------------------------------------------- regression


def test_maml_learns_sinusoids_and_survives_the_store(tmp_path: Path) -> None:
    network = context().apply(Mlp(), None)
    mapping = Maml(
        tasks=Sinusoids(seed=1, phase=(0, 0.5)),
        steps=150,
        tasks_per_step=8,
        inner_steps=1,
        test_steps=5,
        inner_rate=0.01,
        learning_rate=5e-3,
        engine="vmap",
    )
    learner = context().apply(mapping, network)
    assert learner.signature.answers == "values"
    assert learner.signature.outputs[0].shape == ("N", 1)
    store = Store(tmp_path)
    loaded = store.load(store.save(learner))
    tasks = Sinusoids(seed=99, queries=50, phase=(0, 0.5)).open()
    episodes = [tasks[number] for number in range(60)]
    module, preprocessing = loaded.module(), loaded.signature.preprocessing
    results = episode_results(module, preprocessing, loaded.adaptation, episodes)
    assert results.errors is not None
    assert np.array_equal(results.errors, results.losses)
    assert np.isnan(results.accuracies).all()
    path = accuracies_by_step(module, preprocessing, loaded.adaptation, episodes)
    assert path is not None
    assert np.allclose(path[-1], results.errors)
    assert path[-1].mean() < 0.85 * path[0].mean()
    zero = float(np.mean([np.square(episode.query_labels).mean() for episode in episodes]))
    assert path[-1].mean() < 0.3 * zero
    metrics = episode_metrics(module, preprocessing, loaded.adaptation, episodes)
    assert metrics == {"val_loss": results.losses.mean(), "val_error": results.losses.mean()}


def test_an_error_is_the_mean_square_over_queries_and_numbers() -> None:
    network = context().apply(Mlp(inputs=3, widths=(4,), classes=3), None)
    tasks = LinearDynamics(size=3, shots=4, queries=6).open()
    adaptation = Adaptation(method="gradient", settings={"steps": 1, "rate": 1e-12})
    episodes = [tasks[number] for number in range(5)]
    found = episode_results(network.module(), network.signature.preprocessing, adaptation, episodes).errors
    module = network.module().double()
    with torch.no_grad():
        outputs = [module(torch.as_tensor(episode.query).double()).numpy() for episode in episodes]
    expected = [np.square(out - episode.query_labels).mean() for out, episode in zip(outputs, episodes, strict=True)]
    assert np.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("head", ["learned", "zero"])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_engines_agree_on_several_numbers(head: Any, engine: Any) -> None:
    network = context().apply(Mlp(inputs=3, widths=(8,)), None)
    mapping = Maml(
        tasks=LinearDynamics(size=3), steps=3, inner_steps=2, inner_rate=0.1, head=head, engine=engine, tasks_per_step=3
    )
    learner = context().apply(mapping, network)
    other = context().apply(dataclasses.replace(mapping, engine="loop"), network)
    for name, tensor in learner.tensors.items():
        assert torch.allclose(tensor, other.tensors[name], atol=1e-6), name
    assert learner.signature.outputs[0].shape == ("N", 3 if head == "learned" else 8)


def test_a_learner_of_classes_refuses_regression() -> None:
    network = context().apply(Mlp(), None)
    with pytest.raises(DataError, match="ask for numbers"):
        context().apply(Protonet(tasks=Sinusoids(), steps=1), network)
    tasks = Sinusoids().open()
    with pytest.raises(DomainError, match="ask for numbers"):
        episode_results(network.module(), network.signature.preprocessing, CENTROID, [tasks[0]])


# ----------------------------------------------------------------------------------------------- embeddings and rows


@pytest.fixture
def pixels(tmp_path: Path) -> Arrays:
    samples = Digits(size=8).open()
    np.savez(tmp_path / "pixels.npz", inputs=samples.inputs.reshape(len(samples), -1) / 255.0, labels=samples.labels)
    return Arrays(file=str(tmp_path / "pixels.npz"))


def test_tasks_over_embeddings(pixels: Arrays) -> None:
    seen = EpisodesOf(data=pixels, ways=5, shots=1, queries=5)
    new = EpisodesOf(data=pixels, ways=5, shots=1, queries=5, seed=1)
    same = context().apply(Mlp(data=pixels, widths=()), None)
    rows = torch.rand(3, 64)
    assert torch.equal(same.module()(rows), rows)
    before = accuracy(same, new)
    assert before > 0.5
    network = context().apply(Mlp(data=pixels, widths=(64,)), None)
    learner = context().apply(Protonet(tasks=seen, steps=100, learning_rate=3e-3), network)
    assert accuracy(learner, new) > before + 0.05
    with pytest.raises(DomainError, match="no parameters to train"):
        context().apply(Protonet(tasks=seen, steps=1), same)
    with pytest.raises(DataError, match=r"shape \(7,\)"):
        context().apply(Protonet(tasks=seen, steps=1), context().apply(Mlp(inputs=7), None))


def test_mlp_takes_its_form_from_data(pixels: Arrays) -> None:
    network = context().apply(Mlp(data=pixels, widths=(5,), activation="tanh", classes="data"), None)
    assert network.signature.classes == tuple("0123456789")
    module = network.module()
    x = torch.rand(2, 64)
    first, head = module.features[0], module.classifier  # type: ignore[union-attr, index]
    assert torch.allclose(module(x), torch.tanh(x @ first.weight.T + first.bias) @ head.weight.T + head.bias)
    with pytest.raises(DomainError, match="no rows"):
        context().apply(Mlp(data=DIGITS), None)
    with pytest.raises(DomainError, match="3, but the data has 64"):
        context().apply(Mlp(data=pixels, inputs=3), None)
    with pytest.raises(DomainError, match="there is none"):
        context().apply(Mlp(classes="data"), None)


def test_tasks_with_samples_of_their_own_are_scored_as_each_alone() -> None:
    network = conv()
    tasks = TaskAugmented(data=DIGITS, ways=4, queries=3).open()
    episodes = [tasks[number] for number in range(6)]
    args = (network.module(), network.signature.preprocessing, CENTROID)
    together = episode_results(*args, episodes)
    alone = [episode_results(*args, [episode]) for episode in episodes]
    assert np.allclose(together.losses, [one.losses[0] for one in alone], rtol=1e-4)
    assert np.allclose(together.accuracies, [one.accuracies[0] for one in alone])


# ------------------------------------------------------------------------------------------------------------ no labels


@pytest.mark.parametrize("by", ["maml", "protonet"])
@pytest.mark.parametrize("cls", [Umtra, Cactus], ids=["umtra", "cactus"])
def test_labels_are_never_read(cls: Any, by: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"clusters": 12, "partitions": 2, "dimensions": 8} if cls is Cactus else {}
    network = conv(4)

    def learner(data: Dataset) -> Network:
        tasks = EpisodesOf(data=data, ways=3, shots=1, queries=2)
        return context().apply(cls(tasks=tasks, by=by, steps=3, inner_steps=1, engine="loop", **fields), network)

    found = learner(DIGITS)
    assert digest(found, tmp_path) == digest(learner(Shuffled()), tmp_path)
    assert found.adaptation is not None
    assert found.adaptation.method == {"maml": "gradient", "protonet": "centroid"}[by]


@pytest.mark.parametrize(
    "mapping",
    [
        Umtra(tasks=EpisodesOf(data=DIGITS, queries=3), by="protonet", steps=60, learning_rate=5e-3),
        Cactus(
            tasks=EpisodesOf(data=DIGITS, queries=5),
            by="protonet",
            clusters=30,
            dimensions=16,
            partitions=2,
            steps=100,
            learning_rate=5e-3,
        ),
    ],
    ids=["umtra", "cactus"],
)
def test_without_labels_it_learns(mapping: Mapping[Network, Network]) -> None:
    network, new = conv(), EpisodesOf(data=DIGITS, queries=10, seed=5)
    assert accuracy(context().apply(mapping, network), new) > accuracy(network, new) + 0.03


def test_tasks_without_labels_are_taken_as_they_are(tmp_path: Path) -> None:
    network = conv(4)
    tasks = UmtraTasks(data=DIGITS, ways=3, queries=2)
    own = context().apply(Umtra(tasks=tasks, by="protonet", steps=2), network)
    plain = context().apply(Protonet(tasks=tasks, steps=2), network)
    assert digest(own, tmp_path) == digest(plain, tmp_path)
    clustered = Clustered(data=DIGITS, ways=3, queries=2, clusters=12, partitions=1)
    context().apply(Cactus(tasks=clustered, by="protonet", steps=1), network)
    with pytest.raises(DataError, match="not drawn from a data set"):
        context().apply(Umtra(tasks=Sinusoids(), steps=1), network)


def test_cactus_clusters_what_a_network_sees() -> None:
    network = conv(4)
    mapping = Cactus(tasks=EPISODES, by="protonet", embedding=network, clusters=12, partitions=1, dimensions=6, steps=1)
    episodes = mapping.drawn(context())
    pixels = dataclasses.replace(mapping, embedding=None).drawn(context())
    assert episodes[0].support_indices.tolist() != pixels[0].support_indices.tolist()
    with pytest.raises(DataError, match="2000 clusters"):
        context().apply(dataclasses.replace(mapping, clusters=2000), network)


# ------------------------------------------------------------------------------------------------------- cross-domain


def test_a_transformation_is_an_affine_map_of_what_norms_give() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).double().eval()
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64)
    scale, shift = torch.rand(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    with feature_wise_transform.transformed(net, {"1": (scale, shift)}), batch_norm.task_norms(net):
        found = net(x)
        together = torch.func.vmap(lambda one: torch.func.functional_call(net, {}, (one,)))(x[None])
    z = net[0](x)
    normal = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    expected = torch.relu(scale[:, None, None] * normal + shift[:, None, None])
    assert torch.allclose(found, expected)
    assert torch.allclose(together[0], expected)
    assert not net[1]._forward_hooks


def test_noise_has_the_papers_deviations() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4000, 1), nn.BatchNorm2d(4000))
    torch.manual_seed(0)
    scale, shift = feature_wise_transform.noise(net)["1"]
    assert abs(scale.mean() - 1) < 0.02
    assert abs(scale.std() - 0.3) < 0.02
    assert abs(shift.mean()) < 0.03
    assert abs(shift.std() - 0.5) < 0.02
    theta = torch.linspace(-1, 1, 7, dtype=torch.float64)
    assert torch.allclose(feature_wise_transform.deviation(theta), torch.log1p(torch.exp(100 * theta)) / 100)


@pytest.mark.parametrize("mapping", [Protonet(tasks=EPISODES, steps=2), Maml(tasks=EPISODES, steps=2, engine="vmap")])
def test_any_learner_takes_feature_noise(mapping: Any, tmp_path: Path) -> None:
    network = conv(4)
    noisy = dataclasses.replace(mapping, feature_noise=1.0)
    first, again = context().apply(noisy, network), context().apply(noisy, network)
    assert digest(first, tmp_path) == digest(again, tmp_path)
    assert digest(first, tmp_path) != digest(context().apply(mapping, network), tmp_path)
    assert not any(part._forward_hooks for part in first.module().modules())


def test_feature_noise_needs_batch_norms() -> None:
    with pytest.raises(DomainError, match="batch norms"):
        context().apply(Maml(tasks=Sinusoids(), steps=1, feature_noise=1.0), context().apply(Mlp(), None))


LEARNED = FeatureWise(
    tasks=EPISODES, unseen=EpisodesOf(data=Digits(size=12, split="test"), ways=3, queries=2), steps=4, ahead=0.5
)


def test_learned_scales_have_the_gradient_of_the_step_ahead() -> None:
    network, ctx = conv(3), context()
    learner, _, _ = LEARNED.learner(network, ctx)
    learner.double().train()
    task = LEARNED.items(network, ctx)[0]
    prepared = LEARNED._prepared(network, ctx)
    inputs = prepared(task).double()
    names = list(learner.own)

    class InDouble(FeatureWise):
        def _prepared(self, value: Network, ctx: Context) -> Any:
            return lambda task: prepared(task).double()

    mapping = InDouble(**{f.name: getattr(LEARNED, f.name) for f in dataclasses.fields(LEARNED)})  # type: ignore[arg-type]

    def whole() -> torch.Tensor:
        torch.manual_seed(7)
        return mapping._objective(learner, inputs, task, 0, network, ctx)

    def seen() -> torch.Tensor:
        torch.manual_seed(7)
        own = learner.tensors
        paths = [name.removeprefix("~scale.") for name in own if name.startswith("~scale.")]
        learned = {path: (own[f"~scale.{path}"], own[f"~shift.{path}"]) for path in paths}
        drawn = feature_wise_transform.noise(learner.network, LEARNED.feature_noise, learned)
        with feature_wise_transform.transformed(learner.network, drawn):
            return LEARNED.loss(learner, inputs, task, 0, ctx)

    gradients = torch.autograd.grad(whole(), [learner.own[name] for name in names])
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients)
    for name, gradient in zip(names, gradients, strict=True):
        for place in range(len(gradient)):
            sides: list[float] = []
            for step in (1e-5, -2e-5):
                learner.own[name].data[place] += step
                sides.append((whole() - seen()).item())
            learner.own[name].data[place] += 1e-5
            assert abs((sides[0] - sides[1]) / 2e-5 - float(gradient[place])) < 1e-5 * max(
                1, abs(float(gradient[place]))
            )


def test_learned_scales_are_kept_and_training_resumes(tmp_path: Path) -> None:
    network = conv(4)
    learner = context().apply(LEARNED, network)
    assert learner.adaptation is not None
    scales = learner.adaptation.tensors["~scale.features.0.1"]
    assert scales.shape == (4,)
    assert not torch.equal(scales, torch.full((4,), 0.3))
    ctx = context()
    ctx.seed_everything(LEARNED.name)
    live = LEARNED.open(network, None, ctx)
    items = LEARNED.items(network, ctx)
    while not live.done:
        ctx.seed_everything(live.step)
        live.advance(items[live.step])
        saved: Any = decode_state(encode_state(live.snapshot()))
        live = LEARNED.open(network, saved, ctx)
    resumed = live.result()
    assert digest(resumed, tmp_path) == digest(learner, tmp_path)
    fixed = context().apply(dataclasses.replace(LEARNED, unseen=None), network)
    assert fixed.adaptation is not None
    assert not fixed.adaptation.tensors
