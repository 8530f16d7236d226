from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Adaptation, Preprocessing
from mapsto.nn.edits.head import Head
from mapsto.nn.edits.quantizers import Quantizer, Quantizers
from mapsto.nn.meta.adaptation import centroid
from mapsto.nn.meta.adaptation_methods import feature_method, method, task_scores
from mapsto.nn.network.head import embed, embed_and_classify, embedding_size, head_path
from mapsto.nn.network.inference import embeddings, evaluating, forward
from mapsto.nn.networks.resnet_cifar import resnet_cifar
from mapsto.nn.networks.vgg import vgg
from mapsto.nn.train.optimizer import Optimisation


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("module", "path", "size"),
    [
        (vgg(plan=[[4], [8]], size=8, classes=5), "classifier", 8),
        (vgg(plan=[[4], [8]], size=8, classes=None), "classifier", 8),
        (resnet_cifar(depth=8, width=4), "linear", 16),
        (resnet_cifar(depth=8, width=4, classes=None), "linear", 16),
        (plain(), "4", 6),
        (nn.Flatten(), None, 192),
    ],
    ids=["vgg", "vgg headless", "resnet", "resnet headless", "plain", "no linear layer"],
)
def test_the_head_and_what_flows_into_it(module: nn.Module, path: str | None, size: int) -> None:
    example = torch.randn(2, 3, 2, 2) if isinstance(module, nn.Sequential) else torch.randn(2, 3, 8, 8)
    module.eval()
    assert head_path(module) == path
    assert embedding_size(module, example) == size
    embedding, output = embed_and_classify(module, example)
    assert torch.equal(embedding, embed(module, example))
    assert torch.equal(output, module(example))
    if path is not None:
        assert torch.equal(module.get_submodule(path)(embedding), output)


def test_a_feature_map_is_no_embedding() -> None:
    with pytest.raises(DomainError, match="not \\(N, D\\)"):
        embed(nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4))


def test_dropout_before_a_head_is_for_training_only_and_renames_nothing() -> None:
    module = Head(path="4", inputs=6, outputs=40, dropout=0.5).apply(plain())
    assert set(module.state_dict()) == set(Head(path="4", inputs=6, outputs=40).apply(plain()).state_dict())
    x = torch.ones(1, 6)
    last = module.get_submodule("4")
    assert torch.equal(last.eval()(x), nn.functional.linear(x, last.weight, last.bias))
    assert not torch.equal(last.train()(x), last(x))


def test_nothing_follows_a_replaced_head() -> None:
    edit = Head(path="4", inputs=6, outputs=2)
    rate = torch.ones(3, 6)
    assert edit.follow("4.weight", rate) is None
    assert edit.follow("1.weight", rate) is rate


@pytest.mark.parametrize(
    ("edit", "message"),
    [(Head(path="9", inputs=6, outputs=2), "9"), (Head(path="4", inputs=7, outputs=2), "takes 6 inputs, not 7")],
)
def test_a_head_that_is_not_there(edit: Head, message: str) -> None:
    with pytest.raises(DomainError, match=message):
        edit.apply(plain())


def test_a_quantized_head_is_not_replaced() -> None:
    step = Quantizer(path="4", function="linear", scale=(1.0,), zero_point=(0,), quant_min=0, quant_max=255)
    module = Quantizers(quantizers=(step,)).apply(plain())
    with pytest.raises(DomainError, match="before quantizing"):
        Head(path="4", inputs=6, outputs=2).apply(module)


def test_inference_is_the_same_in_any_batches_and_leaves_the_mode() -> None:
    module = plain().train()
    module[1].eval()
    images = np.random.default_rng(0).integers(0, 255, (7, 3, 2, 2)).astype(np.uint8)
    how = Preprocessing(channels=3, size=(2, 2), mean=(0.5,) * 3, std=(0.5,) * 3)
    whole, parts = (forward(module, images, how, batch_size=size) for size in (100, 3))
    assert torch.allclose(whole, parts, atol=1e-6)
    assert embeddings(module, images, how, batch_size=2).shape == (7, 6)
    assert [part.training for part in module] == [True, False, True, True, True]
    with evaluating(module):
        assert not module.training


def brute_force(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    means = torch.stack([support[labels == way].mean(0) for way in range(ways)])
    return -torch.stack([((q - means) ** 2).sum(1) for q in query])


def test_centroid_scores_over_tasks_are_those_of_each_task_alone() -> None:
    support, query = torch.randn(3, 6, 5), torch.randn(3, 4, 5)
    labels = torch.stack([torch.randperm(6) % 2 for _ in range(3)])
    together = centroid.scores(support, labels, query, 2)
    for task in range(3):
        assert torch.allclose(together[task], brute_force(support[task], labels[task], query[task], 2), atol=1e-5)
    module = nn.Linear(5, 4)
    learner = Adaptation(method="centroid", settings={"scale": 0.5})
    scores = task_scores(module, torch.cat([support, query], 1), labels, 4, 2, learner)
    assert torch.allclose(scores, centroid.scores(module(support), labels, module(query), 2, scale=0.5), atol=1e-5)


def test_leaving_one_out_is_the_mean_of_the_others() -> None:
    features, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    scores = centroid.leave_one_out_scores(features, labels, 2)
    for place in range(6):
        others = torch.arange(6) != place
        expected = brute_force(features[others], labels[others], features[place : place + 1], 2)
        assert torch.allclose(scores[place], expected[0], atol=1e-5)
    with pytest.raises(DataError, match="one example only"):
        centroid.leave_one_out_scores(features[:2], labels[:2], 2)


def test_cosine_compares_directions() -> None:
    features, labels = torch.randn(8, 3), torch.arange(8) % 2
    unit = torch.nn.functional.normalize(features, dim=1)
    angles = centroid.scores(features, labels, 7 * features, 2, cosine=True)
    means = torch.nn.functional.normalize(torch.stack([unit[labels == way].mean(0) for way in range(2)]), dim=1)
    assert torch.allclose(angles, 2 * unit @ means.T - 2, atol=1e-5)
    left_out = centroid.leave_one_out_scores(features, labels, 2, cosine=True)
    for place in range(8):
        others = torch.arange(8) != place
        expected = centroid.scores(features[others], labels[others], features[place : place + 1], 2, cosine=True)
        assert torch.allclose(left_out[place], expected[0], atol=1e-5)
    weight, bias = centroid.head(features, labels, 2, Adaptation(method="centroid", settings={"distance": "cosine"}))
    assert torch.equal((features @ weight.T + bias).argmax(1), angles.argmax(1))
    through = centroid.feature_scores(
        features[None], labels[None], features[None], 2, Adaptation(method="centroid", settings={"distance": "cosine"})
    )
    assert torch.allclose(through[0], angles, atol=1e-5)


def test_a_class_without_support_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has no example"):
        centroid.scores(torch.ones(2, 3), torch.tensor([0, 2]), torch.ones(1, 3), 3)


def test_methods_are_found_by_name() -> None:
    assert feature_method("centroid") is method("centroid")
    with pytest.raises(SpecError, match="did you mean 'centroid'"):
        method("centriod")


def test_norms_and_biases_do_not_decay() -> None:
    module = plain()
    decaying, kept = Optimisation(weight_decay=0.1).make(module).param_groups
    assert [p.ndim for p in decaying["params"]] == [2, 2]
    assert {p.ndim for p in kept["params"]} == {1}
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert len(Optimisation(decay_norms=True).make(module).param_groups) == 1


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("plateau", 0, [1, 1, 1, 1]),
        ("cosine", 2, [0.5, 1, 1, 0.5]),
    ],
)
def test_rates(schedule: str, warmup: int, rates: list[float]) -> None:
    optimisation = Optimisation(learning_rate=1.0, schedule=schedule, warmup=warmup)  # pyright: ignore[reportArgumentType]
    assert [optimisation.rate(step, 4) for step in range(4)] == pytest.approx(rates)
