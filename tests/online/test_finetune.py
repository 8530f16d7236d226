"""Networks that train on a stream: what they keep, how they grow, and what becomes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mapsto import adapt, datasets, evaluate, export, networks, online, quantize, streams, train
from mapsto.context import Context
from mapsto.errors import DomainError, MapstoError, SpecError
from mapsto.kinds import Block, Model, Network
from mapsto.nn.online.memory.der import Der
from mapsto.nn.online.trained.growing_network import GrowingNetwork, Training
from mapsto.nn.online.trained.method import MethodFields
from mapsto.nn.online.trained.method_names import method_names
from mapsto.nn.online.trained.samples import RawSamples
from mapsto.store import Store
from mapsto.testing.streams import model_digest

DIGITS = datasets.subset(data=datasets.digits(size=8), per_class=20)
IN_TURN = streams.replay(data=DIGITS, order="by_class")
QUICK: dict[str, Any] = {"batch": 8, "memory": 0.005, "replay": 8, "passes": 2, "consolidate": 50}
IMAGE_BYTES = 64


@pytest.fixture(scope="module")
def network() -> Network:
    return networks.conv4(data=DIGITS, width=8, blocks=2)(seed=0)


@pytest.fixture(scope="module")
def classifier() -> Network:
    return train.supervised(data=DIGITS, epochs=2)(
        networks.conv4(data=DIGITS, width=8, blocks=2, classes="data")(seed=0)
    )


def all_digits(size: int = 200) -> Block:
    return next(streams.replay(data=DIGITS).open(size=size))


def accuracy(model: Model) -> float:
    block = all_digits()
    return float((np.array(model.signature.classes)[model.open().predict(block).argmax(1)] == block.y).mean())


@pytest.mark.parametrize(
    "method",
    [
        name if name in ("derpp", "gdumb", "none") else pytest.param(name, marks=pytest.mark.slow)
        for name in method_names()
    ],
)
def test_every_method_goes_on_to_the_bit_in_blocks_of_any_size(method: str, network: Network) -> None:
    stream = streams.replay(data=DIGITS, order="by_class", label_delay=5)
    learner = online.finetune(stream=stream, method=method, **QUICK)
    digests = set()
    for size in (7, 200):
        live = learner.open(network, None, Context())
        for block in stream.open(size=size):
            live.advance(block)
        digests.add(model_digest(live.result()))
    live = learner.open(network, None, Context())
    for block in stream.open(size=90):
        live.advance(block)
        live = learner.open(network, live.snapshot(), Context())
    digests.add(model_digest(live.result()))
    assert len(digests) == 1
    assert live.account()["labels"] == len(DIGITS.open())


def test_a_memory_keeps_what_plain_training_forgets(network: Network) -> None:
    fields = {"stream": IN_TURN, "batch": 8, "steps": 4, "rate": 3e-3}
    without = accuracy(online.finetune(method="none", **fields)(network))
    kept = accuracy(online.finetune(method="replay", **fields)(network))
    assert without < 0.3
    assert kept > without + 0.3


@pytest.mark.parametrize("method", method_names())
def test_memory_is_bounded_in_bytes_and_the_report_says_so(method: str, network: Network) -> None:
    learner = online.finetune(stream=IN_TURN, method=method, **QUICK)
    live = learner.open(network, None, Context())
    for block in IN_TURN.open():
        live.advance(block)
    model, tables = live.result(), {table["title"]: table["rows"] for table in live.account()["tables"]}
    if "memory_samples" not in model.arrays:
        assert not tables
        return
    content, labels = model.arrays["memory_samples"], model.arrays["memory_labels"]
    assert content.dtype == np.uint8, "images stay as they came"
    assert len(content) == IMAGE_BYTES * len(labels) > 0
    assert content.nbytes + labels.nbytes + model.arrays["memory_scores"].nbytes <= 5000
    told = live.account()["classes"]
    assert {each["last"] for each in told} == {20 * (place + 1) for place in range(10)}
    assert dict(tables["Memory of past samples"])["samples"].startswith(f"{len(labels)} of")
    assert sum(row[1] for row in tables["Memory by class"]) == len(labels)


def test_a_class_that_the_network_knows_keeps_its_row_and_a_new_one_begins_at_zero(classifier: Network) -> None:
    stream = streams.replay(data=datasets.subset(data=DIGITS, per_class=1), order="by_class")
    block = next(stream.open(size=10))
    renamed = dataclasses.replace(block, y=np.array(["3", "new", *["3"] * 8], object))
    learner = online.finetune(stream=stream, batch=100)(classifier).open()
    fresh = online.finetune(stream=streams.replay(data=DIGITS), batch=10**6)
    live = fresh.open(classifier, None, Context())
    live.advance(renamed)
    model = live.result()
    assert model.signature.classes == ("3", "new")
    own = classifier.tensors["classifier.weight"].numpy()
    np.testing.assert_array_equal(model.arrays["weights.head.weight"], [own[3], np.zeros_like(own[3])])
    assert learner.signature.classes == tuple("0123456789")


def test_a_later_class_begins_as_the_row_that_learnt_to_be_none_of_the_others(network: Network) -> None:
    training = Training(optimizer="sgd", rate=0.1, part="head")
    growing = GrowingNetwork(network, training, where="", later=True)
    growing.grow(["a", "b"])
    features, labels = torch.randn(8, growing.width, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    for _ in range(20):
        growing.descend(growing.gradients(cross_entropy(growing.logits_and_later(features), labels)))
    before = growing.logits_and_later(features).detach()
    assert (before[:, 2] < before[range(8), labels]).all()
    growing.grow(["a", "b", "c"])
    torch.testing.assert_close(growing.logits_and_later(features)[:, [0, 1, 2, 2]], before[:, [0, 1, 2, 2]])
    torch.testing.assert_close(growing.logits_and_later(features)[:, 3], before[:, 2])
    assert growing.logits(features).shape == (8, 3), "no answer is a later class"


def test_kept_scores_hold_that_of_classes_that_came_later(network: Network) -> None:
    fields = MethodFields(most_bytes=10**6, replay=8, alpha=None, beta=1.0, consolidate=100, passes=1, seed=0)
    growing = GrowingNetwork(network, Training(), where="", later=True)
    growing.grow(["a", "b", "c"])
    der = Der(growing, RawSamples(network.signature), fields)
    assert der.memory is not None
    der.memory.scores = [np.array([3.0, -1.0], np.float32), np.array([1.0, 2.0, 4.0, -2.0], np.float32)]
    target = torch.tensor([[3.0, -1.0, -1.0, -1.0], [1.0, 2.0, 4.0, -2.0]])
    assert der.distance(target, [0, 1]) == 0
    assert der.distance(target + 2.0, [0, 1]) == 4.0


@pytest.mark.parametrize("part", ["head", "lora", "all"])
def test_only_the_part_that_is_asked_for_is_trained(part: Any, classifier: Network) -> None:
    model = online.finetune(stream=IN_TURN, part=part, **QUICK)(classifier)
    trained = {name.removeprefix("weights.") for name in model.arrays if name.startswith("weights.")}
    body = {name for name in trained if not name.startswith(("head.", "later."))}
    whole = {name for name in classifier.tensors if name.endswith(("weight", "bias")) and "classifier" not in name}
    assert {"head.weight", "head.bias"} <= trained
    if part == "lora":
        assert body
        assert all(name.endswith((".lora_a", ".lora_b")) for name in body)
    else:
        assert body == (whole if part == "all" else set())


@pytest.mark.parametrize("part", ["lora", pytest.param("all", marks=pytest.mark.slow)])
def test_what_it_has_become_is_exported_with_all_its_classes(part: Any, classifier: Network, tmp_path: Path) -> None:
    model = online.finetune(stream=IN_TURN, part=part, **QUICK)(classifier)
    store = Store(tmp_path)
    again = store.load(store.save(model))
    package = export.onnx(data=DIGITS, samples=20)(again)
    manifest = package.manifest()
    assert manifest["signature"]["classes"] == list(model.signature.classes)
    assert manifest["parity"]["top1_agreement"] == 1.0
    hosted = export.mapsto(data=DIGITS, samples=20)(model)
    assert hosted.manifest()["parity"]["max_abs_difference"] < 1e-5
    assert evaluate.accuracy(data=DIGITS)(model).metrics["accuracy"].value == pytest.approx(100 * accuracy(model))
    further = online.finetune(stream=IN_TURN, part=part, **QUICK)(model)
    assert further.events == 400


def test_rows_of_a_table_are_learnt_by_a_perceptron() -> None:
    stream = streams.sea(events=1500, noise=0.0)
    model = online.finetune(stream=stream, method="replay", steps=2, rate=0.01)(networks.mlp(inputs=3)(seed=0))
    question = next(streams.sea(events=200, seed=5, noise=0.0).open())
    answers = np.array(model.signature.classes)[model.open().predict(question).argmax(1)]
    assert (answers == question.y).mean() > 0.9


def test_odd_events_are_set_aside(network: Network) -> None:
    block = all_digits(40)
    wrong = block.x["image"].astype(np.float32)
    wrong[3] = np.nan
    odd = dataclasses.replace(block, x={"image": wrong}, y=np.array(["", *block.y[1:]], object))
    live = online.finetune(stream=IN_TURN, **QUICK).open(network, None, Context())
    live.advance(odd)
    aside = live.account()["aside"]
    assert aside == {"an empty, NaN or infinite label": 1, "image: not what the network takes": 1}
    assert live.account()["labels"] == 38


def test_what_cannot_be_trained_is_refused(classifier: Network) -> None:
    learner = online.finetune(stream=IN_TURN)
    package = export.onnx(data=DIGITS)(classifier)
    with pytest.raises(DomainError, match="a package answers and cannot be trained"):
        learner(package)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DomainError, match="quantized"):
        learner(quantize.static(data=DIGITS)(classifier))
    with pytest.raises(DomainError, match="no network to train"):
        learner(None)
    with pytest.raises(MapstoError, match=r"online\.finetune takes"):
        export.onnx(data=DIGITS) >> learner  # pyright: ignore[reportUnusedExpression]
    with pytest.raises(SpecError, match=r"method.*derp"):
        online.finetune(stream=IN_TURN, method="derp")


@pytest.mark.slow
def test_adapters_that_a_network_brings_are_trained_and_merged_when_it_leaves(classifier: Network) -> None:
    model = online.finetune(stream=IN_TURN, part="lora", **QUICK)(adapt.lora(rank=2)(classifier))
    assert model.arrays["weights.features.0.0.lora_a"].shape[0] == 2
    assert export.onnx(data=DIGITS, samples=20)(model).manifest()["parity"]["top1_agreement"] == 1.0


def test_images_are_changed_at_random_and_the_model_knows_how(network: Network) -> None:
    made = online.finetune(stream=IN_TURN, augment=["flip", {"crop": {"padding": 1}}], **QUICK)  # pyright: ignore[reportArgumentType]
    model = made(network)
    assert model.fields["augment"] == [{"flip": {"probability": 0.5, "vertical": 0.0}}, {"crop": {"padding": 1}}]
    assert model_digest(made(network)) == model_digest(model)
    assert model_digest(model) != model_digest(online.finetune(stream=IN_TURN, **QUICK)(network))
    assert made(model).events == 400
    with pytest.raises(SpecError, match="mixup"):
        online.finetune(stream=IN_TURN, augment=["mixup"])  # pyright: ignore[reportArgumentType]
