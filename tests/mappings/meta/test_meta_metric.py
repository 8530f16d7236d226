"""Learners that adapt by comparison or in closed form: their formulas, their heads, and that they learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, context, network
from torch import Tensor, nn

from mapsto.data.sets.episodes import EpisodesOf
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Adaptation, Network
from mapsto.mappings.evaluate.episodes import Episodes
from mapsto.mappings.meta.baseline import Baseline
from mapsto.mappings.meta.matching import Matching
from mapsto.mappings.meta.metaoptnet import Metaoptnet
from mapsto.mappings.meta.protomaml import Protomaml
from mapsto.mappings.meta.r2d2 import R2d2
from mapsto.mappings.meta.relation import Relation
from mapsto.mappings.meta.semi import Semi
from mapsto.mappings.meta.transductive import Transductive
from mapsto.nn.meta import inner_loop
from mapsto.nn.meta.adaptation import centroid, cosine, laplacian, matching, relation, ridge, soft_kmeans, svm
from mapsto.nn.meta.adaptation_methods import linear_method
from mapsto.nn.meta.class_means import centroids
from mapsto.nn.network.inference import embeddings
from mapsto.nn.train.batches import task_of
from mapsto.store import Store

pytestmark = pytest.mark.usefixtures("trusted")
WAYS, SHOTS, SIZE = 3, 4, 6
LABELS = torch.arange(WAYS).repeat_interleave(SHOTS)
TASKS = EpisodesOf(data=Corners(), ways=WAYS, shots=2, queries=3)
NEW = EpisodesOf(data=Corners(seed=1), ways=WAYS, shots=2, queries=5)


def clusters(*, samples: int = WAYS * SHOTS, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Support (S, D) and query (Q, D) around three points, in float64."""
    torch.manual_seed(0)
    centres = 2 * torch.randn(WAYS, SIZE, dtype=torch.float64)
    noise = spread * torch.randn(2, samples, SIZE, dtype=torch.float64)
    return centres[LABELS] + noise[0], centres[LABELS] + noise[1]


# -- formulas


def test_matching_is_a_softmax_over_the_support_set() -> None:
    support, query = clusters()
    scores = matching.feature_scores(
        support[None], LABELS[None], query[None], WAYS, Adaptation(method="matching", settings={"scale": 3.0})
    )[0]
    for row, sample in zip(scores, query, strict=True):
        likeness = torch.stack([3 * torch.nn.functional.cosine_similarity(sample, other, dim=0) for other in support])
        attention = likeness.exp() / likeness.exp().sum()
        expected = torch.stack([attention[way == LABELS].sum() for way in range(WAYS)])
        assert torch.allclose(row.exp(), expected, atol=1e-12)
    targets = torch.randn(1, len(support), 2, dtype=torch.float64)
    means = matching.feature_scores(
        support[None], targets, support[None], 2, Adaptation(method="matching", settings={"scale": 1e5})
    )
    assert torch.allclose(means, targets, atol=1e-6)


@pytest.mark.parametrize("size", [3, 40], ids=["fewer numbers", "fewer samples"])
def test_ridge_is_the_solution_of_the_normal_equations(size: int) -> None:
    torch.manual_seed(0)
    features, query = torch.randn(2, WAYS * SHOTS, size, dtype=torch.float64)
    tensors = ridge.first_tensors(penalty=0.3, scale=2.0) | {"~bias": torch.tensor(0.5)}
    weight, bias = ridge.head(features, LABELS, WAYS, Adaptation(method="ridge", tensors=tensors))
    padded = np.c_[features.numpy(), np.ones(len(features))]
    targets = np.eye(WAYS)[LABELS.numpy()]
    expected = 2 * np.linalg.solve(padded.T @ padded + 0.3 * np.eye(size + 1), padded.T @ targets)
    assert np.allclose(weight.T, expected[:-1], atol=1e-6)
    assert np.allclose(bias, expected[-1] + 0.5, atol=1e-6)
    scores = ridge.feature_scores(
        features[None], LABELS[None], query[None], WAYS, Adaptation(method="ridge", tensors=tensors)
    )[0]
    assert torch.allclose(scores, query @ weight.T + bias)


def test_ridge_predicts_numbers() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 30, 4, dtype=torch.float64)
    targets = features @ torch.randn(4, 2, dtype=torch.float64) + 3.0
    found = ridge.feature_scores(
        features, targets, features, 2, Adaptation(method="ridge", tensors=ridge.first_tensors(penalty=1e-9, scale=7.0))
    )
    assert torch.allclose(found, targets, atol=1e-6)


def test_an_inverse_by_products_alone_is_that_of_lapack() -> None:
    torch.manual_seed(0)
    factor = torch.randn(3, 30, 12, dtype=torch.float64)
    matrix = factor @ factor.mT + 1e-4 * torch.eye(30, dtype=torch.float64)
    assert torch.linalg.cond(matrix).max() > 1e5
    target = torch.randn(3, 30, 2, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, target)
    assert torch.allclose(ridge.inverse(matrix) @ target, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("strength", [0.1, 10.0])
@pytest.mark.parametrize("spread", [0.7, 3.0], ids=["apart", "mixed"])
def test_the_machine_is_that_of_liblinear(strength: float, spread: float) -> None:
    from sklearn.svm import LinearSVC

    support, query = clusters(spread=spread)
    weight, bias = svm.head(support, LABELS, WAYS, Adaptation(method="svm", settings={"strength": strength}))
    peer: Any = LinearSVC(multi_class="crammer_singer", fit_intercept=False, C=strength, tol=1e-10, max_iter=1_000_000)
    peer.fit(support.numpy(), LABELS.numpy())
    assert np.allclose(weight, peer.coef_, atol=1e-5)
    assert not bias.any()
    scores = svm.feature_scores(
        support[None], LABELS[None], query[None], WAYS, Adaptation(method="svm", settings={"strength": strength})
    )[0]
    assert np.array_equal(scores.argmax(1), peer.predict(query.numpy()))


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_gradient_through_the_machine(strength: float) -> None:
    torch.manual_seed(1)
    features = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    labels, query = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 1, 0, 0, 1, 2]]), torch.randn(2, 3, 4, dtype=torch.float64)

    def call(support: Tensor) -> Tensor:
        return svm.feature_scores(support, labels, query, 3, Adaptation(method="svm", settings={"strength": strength}))

    assert torch.autograd.gradcheck(call, (features,), atol=1e-5, rtol=1e-4)


def test_a_machine_on_what_is_not_finite_is_refused() -> None:
    with pytest.raises((DomainError, RuntimeError)):
        svm.head(torch.full((6, 2), torch.nan), torch.arange(6) % 3, 3, Adaptation(method="svm"))


def test_soft_kmeans_is_the_papers_formula() -> None:
    support, query = clusters()
    others = torch.randn(7, SIZE, dtype=torch.float64)
    log_radius = torch.tensor(0.3, dtype=torch.float64)
    means = torch.stack([support[way == LABELS].mean(0) for way in range(WAYS)])
    numerator, denominator = SHOTS * means, torch.full((WAYS, 1), float(SHOTS), dtype=torch.float64)
    for sample in others:
        weights = [torch.exp(-((sample - mean) ** 2).sum()) for mean in means]
        weights.append(torch.exp(-(sample**2).sum() / log_radius.exp() ** 2) / log_radius.exp())
        for way in range(WAYS):
            share = weights[way] / sum(weights)
            numerator[way] += share * sample
            denominator[way] += share
    found = soft_kmeans.refined(support, LABELS, others, WAYS, log_radius=log_radius)
    assert torch.allclose(found, numerator / denominator, atol=1e-10)
    tensors = {"~log_radius": log_radius}
    scores = soft_kmeans.unlabelled_scores(
        support[None], LABELS[None], query[None], others[None], WAYS, Adaptation(method="soft_kmeans", tensors=tensors)
    )
    assert torch.allclose(scores[0], -torch.cdist(query, found).square(), atol=1e-8)
    plain = soft_kmeans.feature_scores(
        support[None], LABELS[None], query[None], WAYS, Adaptation(method="soft_kmeans", tensors=tensors)
    )
    assert torch.allclose(plain[0], -torch.cdist(query, means).square(), atol=1e-8)


def test_a_distractor_moves_no_mean_where_it_has_a_cluster() -> None:
    support, labels = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1])
    distractor = torch.tensor([[0.5, 0.2]])
    kept = soft_kmeans.refined(support, labels, distractor, 2, log_radius=torch.tensor(0.0))
    moved = soft_kmeans.refined(support, labels, distractor, 2)
    assert torch.allclose(kept, support, atol=1e-5)
    assert (moved - support).norm() > 1


def test_the_gradient_of_the_cosine_head_is_that_of_its_loss() -> None:
    support, _ = clusters()
    units = torch.nn.functional.normalize(support, dim=-1)
    weight = torch.nn.functional.normalize(centroids(units, LABELS, WAYS), dim=-1).requires_grad_()
    logits = 5 * units @ torch.nn.functional.normalize(weight, dim=-1).T
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, LABELS), weight)
    expected = torch.nn.functional.normalize(weight.detach() - 0.1 * gradient, dim=-1)
    assert torch.allclose(cosine.fitted(units, LABELS, WAYS, scale=5.0, steps=1, rate=0.1), expected, atol=1e-12)


def test_propagation_lowers_its_objective_and_helps() -> None:
    torch.manual_seed(0)
    query = torch.randn(12, SIZE, dtype=torch.float64)
    affinity = laplacian.neighbours(query, 3)
    assert torch.equal(affinity, affinity.T)
    assert not affinity.diagonal().any()
    distances = torch.rand(12, WAYS, dtype=torch.float64)

    def objective(steps: int) -> float:
        labels = laplacian.propagated(distances, affinity, weight=1.0, steps=steps).exp()
        entropy = (labels * labels.clamp_min(1e-30).log()).sum()
        return float((labels * distances).sum() - 0.5 * (labels * (affinity @ labels)).sum() + entropy)

    assert objective(20) <= objective(1) <= objective(0)


def test_relation_compares_each_query_with_each_class() -> None:
    torch.manual_seed(0)
    for channels in (None, 2):
        size = 32 if channels else SIZE
        tensors = relation.first_tensors(size=size, hidden=4, channels=channels)
        settings: Any = {} if channels is None else {"channels": channels}
        support, query = torch.randn(1, len(LABELS), size), torch.randn(1, 5, size)
        whole = relation.feature_scores(
            support, LABELS[None], query, WAYS, Adaptation(method="relation", settings=settings, tensors=tensors)
        )
        assert whole.shape == (1, 5, WAYS)
        one = relation.feature_scores(
            support,
            LABELS[None],
            query[:, 2:3],
            WAYS,
            Adaptation(method="relation", settings=settings, tensors=tensors),
        )
        assert torch.allclose(whole[:, 2:3], one, atol=1e-5)


@pytest.mark.parametrize("pairs", [1, 2 * WAYS, 512])
def test_relation_convolves_maps_side_by_side(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation, "_PAIRS", pairs)
    torch.manual_seed(0)
    tensors = {name: tensor.double() for name, tensor in relation.first_tensors(size=72, hidden=4, channels=2).items()}
    learner = Adaptation(method="relation", settings={"channels": 2}, tensors=tensors)
    support, query = torch.randn(1, len(LABELS), 72).double(), torch.randn(1, 5, 72).double()
    found = relation.feature_scores(support, LABELS[None], query, WAYS, learner)
    classes = centroids(support, LABELS[None], WAYS)
    for way in range(WAYS):
        for number in range(5):
            maps = torch.cat([part.reshape(1, 2, 6, 6) for part in (classes[0, way], query[0, number])], 1)
            for name in ("~conv_1", "~conv_2"):
                maps = torch.nn.functional.conv2d(maps, tensors[f"{name}.weight"], padding=1)
                scale, bias = tensors[f"{name}.scale"], tensors[f"{name}.bias"]
                maps = torch.nn.functional.group_norm(maps, 1, scale, bias).relu()
                maps = torch.nn.functional.max_pool2d(maps, 2)
            hidden = (maps.flatten(1) @ tensors["~second.weight"].T + tensors["~second.bias"]).relu()
            alone = hidden @ tensors["~out.weight"].T + tensors["~out.bias"]
            torch.testing.assert_close(found[0, number, way], alone.squeeze())


# -- heads


HEADS: list[tuple[str, dict[str, Any], dict[str, Tensor]]] = [
    ("centroid", {"scale": 0.5}, {}),
    ("ridge", {}, ridge.first_tensors(penalty=0.5, scale=2.0)),
    ("svm", {"strength": 1.0}, svm.first_tensors(scale=2.0)),
    ("soft_kmeans", {}, {}),
    ("centroid", {"distance": "cosine"}, {}),
    ("cosine", {"scale": 5.0}, {}),
]


@pytest.mark.parametrize(("name", "settings", "tensors"), HEADS)
def test_a_head_ranks_as_the_method_does(name: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    support, query = clusters(spread=2.0)
    method = linear_method(name)
    assert method is not None
    weight, bias = method.head(support, LABELS, WAYS, Adaptation(method=name, settings=settings, tensors=tensors))
    assert (weight.shape, bias.shape) == ((WAYS, SIZE), (WAYS,))
    scores = method.feature_scores(
        support[None], LABELS[None], query[None], WAYS, Adaptation(method=name, settings=settings, tensors=tensors)
    )[0]
    logits = query @ weight.T + bias
    if name == "cosine" or settings.get("distance") == "cosine":
        assert torch.equal(logits.argmax(1), scores.argmax(1))
    else:
        assert torch.allclose(logits.log_softmax(1), scores.log_softmax(1), atol=1e-8)


class _HeadOf(nn.Module):
    def __init__(self, name: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.names = list(tensors)
        for number, tensor in enumerate(tensors.values()):
            self.register_buffer(f"tensor_{number}", tensor)

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        method = linear_method(self.name)
        assert method is not None
        tensors = {name: self.get_buffer(f"tensor_{number}") for number, name in enumerate(self.names)}
        return method.head(
            features, labels, WAYS, Adaptation(method=self.name, settings=self.settings, tensors=tensors)
        )


@pytest.mark.parametrize(("name", "settings", "tensors"), [head for head in HEADS if head[0] != "svm"])
def test_a_head_exports(name: str, settings: dict[str, Any], tensors: dict[str, Tensor], tmp_path: Path) -> None:
    import onnxruntime

    support = clusters()[0].float()
    module = _HeadOf(name, {**settings, "steps": 3} if name == "cosine" else settings, tensors).eval()
    expected = module(support, LABELS)
    torch.onnx.export(module, (support, LABELS), tmp_path / "head.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    names = [given.name for given in session.get_inputs()]
    found = session.run(None, dict(zip(names, (support.numpy(), LABELS.numpy()), strict=True)))
    for mine, theirs in zip(expected, found, strict=True):
        assert np.allclose(mine, theirs, atol=1e-4)


# -- learners


LEARNERS = [
    Matching(tasks=TASKS, steps=30, learning_rate=0.01),
    Relation(tasks=TASKS, steps=60, learning_rate=0.01),
    R2d2(tasks=TASKS, steps=30, learning_rate=0.01),
    Metaoptnet(tasks=TASKS, steps=30, learning_rate=0.01),
    Semi(tasks=EpisodesOf(data=Corners(), ways=3, shots=2, queries=3, unlabelled=3, distractors=1), steps=20),
    Protomaml(tasks=TASKS, steps=10, inner_steps=2, learning_rate=0.01, engine="loop"),
    Baseline(data=Corners(), epochs=8, batch_size=12, learning_rate=0.01),
    Baseline(data=Corners(), epochs=8, batch_size=12, learning_rate=0.01, adapt="fitted"),
    Transductive(),
]


@pytest.mark.parametrize("mapping", LEARNERS, ids=lambda mapping: mapping.name)
def test_a_learner_learns_is_stored_and_adapts_elsewhere(mapping: Any, store_folder: Path) -> None:
    value = network(classes=4 if mapping.name == "meta.transductive" else None)
    result: Network = context().apply(mapping, value)
    assert result.adaptation is not None
    assert not result.signature.classes
    store = Store(store_folder)
    again: Network = store.load(store.save(result))
    assert again.adaptation is not None
    assert again.adaptation.settings == result.adaptation.settings
    assert all(torch.equal(again.adaptation.tensors[name], t) for name, t in result.adaptation.tensors.items())
    tasks = NEW
    report = context(seed=5).apply(Episodes(tasks=tasks, episodes=40), again)
    assert report.metrics["accuracy"].value > 85


def test_what_is_learned_besides_the_network_moves() -> None:
    value = network()
    for mapping, name in (
        (R2d2(tasks=TASKS, steps=5), "~log_penalty"),
        (Metaoptnet(tasks=TASKS, steps=5), "~log_scale"),
    ):
        before = mapping.adaptation(value, None).tensors[name]
        after = context().apply(mapping, value).adaptation
        assert after is not None
        assert after.tensors[name] != before


def test_any_number_of_ways() -> None:
    result = context().apply(Protomaml(tasks=TASKS, steps=2, inner_steps=1, engine="loop"), network())
    tasks = EpisodesOf(data=Corners(seed=1), ways=4, shots=1, queries=5)
    assert context().apply(Episodes(tasks=tasks, episodes=10), result).metrics["accuracy"].value > 40


def test_protomaml_begins_at_the_class_means() -> None:
    support, query = (part.float() for part in clusters())
    call = inner_loop.FunctionalModule(nn.Identity(), inner_loop.Inner(head="prototype", batch_norm="none"), {})
    point = next(iter(inner_loop.inner_path(call, {}, support, LABELS, WAYS, steps=0)))
    expected = centroid.scores(support, LABELS, query, WAYS).log_softmax(1)
    assert torch.allclose(call(point, query, 0).log_softmax(1), expected, atol=1e-4)


def test_the_transductive_learner_keeps_its_own_distance() -> None:
    value = network()
    own = Adaptation(method="centroid", settings={"scale": 0.3, "distance": "euclidean"})
    result = context().apply(Transductive(), dataclasses.replace(value, adaptation=own))
    assert result.adaptation is not None
    assert (result.adaptation.settings["scale"], result.adaptation.settings["distance"]) == (0.3, "euclidean")


# -- tasks with unlabelled samples


def test_unlabelled_samples_are_none_of_the_others() -> None:
    tasks = EpisodesOf(data=Corners(), ways=2, shots=1, queries=2, unlabelled=3, distractors=1)
    for number in range(20):
        episode = tasks.open()[number]
        assert episode.unlabelled_indices is not None
        assert len(episode.unlabelled_indices) == 9
        together = np.r_[episode.support_indices, episode.query_indices, episode.unlabelled_indices]
        assert len(np.unique(together)) == len(together)
        labels = episode.samples.labels[episode.unlabelled_indices]
        assert (~np.isin(labels, episode.classes)).sum() == 3


def test_without_them_episodes_and_fingerprints_are_as_before() -> None:
    plain = EpisodesOf(data=Corners(), ways=2, shots=1, queries=2)
    assert plain.open()[3].unlabelled_indices is None
    assert plain.fingerprint() != EpisodesOf(data=Corners(), ways=2, shots=1, queries=2, unlabelled=1).fingerprint()


def test_unlabelled_samples_are_used_in_evaluation() -> None:
    value = network()
    tasks = EpisodesOf(data=Corners(seed=1), ways=3, shots=1, queries=3, unlabelled=5)
    learner = dataclasses.replace(value, adaptation=Adaptation(method="soft_kmeans", settings={"scale": 0.5}))
    report = context().apply(Episodes(tasks=tasks, episodes=5), learner)
    right: list[float] = []
    for number in range(5):
        episode = tasks.open()[number]
        task = task_of([episode], unlabelled=True)
        features = embeddings(value.module(), task.inputs[0], value.signature.preprocessing)
        scores = soft_kmeans.unlabelled_scores(
            features[None, :3],
            torch.as_tensor(task.support_labels),
            features[None, 3:12],
            features[None, 12:],
            3,
            Adaptation(method="soft_kmeans", settings={"scale": 0.5}),
        )
        right.append(float((scores.argmax(-1).numpy() == task.query_labels).mean()))
    assert report.metrics["accuracy"].value == pytest.approx(100 * np.mean(right), abs=1e-6)


# -- bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ways": 4, "distractors": 1, "unlabelled": 1}, "4-way episodes with 1 distractors need 5 classes"),
        ({"ways": 2, "unlabelled": 40}, "40 unlabelled samples need"),
    ],
)
def test_tasks_that_the_data_cannot_give(fields: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        EpisodesOf(data=Corners(), queries=2, **fields).open()


def test_wrong_fields_are_named() -> None:
    with pytest.raises(SpecError, match="penalty"):
        R2d2(tasks=TASKS, penalty=0)
    with pytest.raises(SpecError, match="head"):
        Protomaml(tasks=TASKS, head="zero")  # type: ignore[arg-type]
    with pytest.raises(DomainError, match="no square feature map of 5 channels"):
        context().apply(Relation(tasks=TASKS, channels=5, steps=1), network())


def test_a_class_without_support_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has no example"):
        cosine.feature_scores(
            torch.ones(1, 2, 3), torch.tensor([[0, 2]]), torch.ones(1, 1, 3), 3, Adaptation(method="cosine")
        )
