"""Contrastive tuning: the parts give what the whole gives, and the network holds both branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mapsto import adapt, datasets, evaluate, export, networks
from mapsto.context import SilentContext
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.adapt.contrastive_tuning import BalancedBatches
from mapsto.nn.adapt.features import features
from mapsto.nn.adapt.top_layers import HiddenStates, TopLayers, tunable_layers
from mapsto.nn.network.inference import forward
from mapsto.report.build import save_package
from mapsto.search.adapt import Examples, Small, adaptation_recipe
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing.texts import encoded
from tests.text.test_label_names import table
from tests.text.tiny_encoder import tiny_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    folder = tiny_encoder(tmp_path_factory.mktemp("tiny"), layers=3)
    return networks.hf_text(folder=str(folder), length=16)(seed=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("texts"))


def tuned(encoder: Network, file: Path, **fields: Any) -> Network:
    data = datasets.text(file=str(file), target="intent")
    wanted = {"layers": 1, "epochs": 4, "batch_size": 6, "learning_rate": 1e-2, "label_names": "leave_out", **fields}
    return adapt.contrastive(data=data, **wanted)(encoder, seed=0)


def ids_of(encoder: Network, file: Path) -> np.ndarray:
    return datasets.text(file=str(file)).read_for(encoder.signature.preprocessing).open().inputs


@pytest.mark.parametrize("most", [1 << 31, 0])
def test_the_top_layers_over_kept_hidden_states_give_the_whole_encoders_embedding(
    encoder: Network, file: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapsto.nn.adapt.top_layers._MOST_KEPT", most)
    ids = ids_of(encoder, file)
    hidden = HiddenStates(encoder, ids, 2, CPU, where="test")
    top = TopLayers(encoder, 2, where="test").eval()
    places = np.array([3, 0, 7, 11, 2])
    with torch.no_grad():
        found = hidden.embedded(top, places)
    wanted = features(encoder, ids[places], SilentContext(seed=0))
    assert np.allclose(found.numpy(), wanted, atol=1e-5)
    assert {name.split(".")[0] for name, each in top.named_parameters() if each.requires_grad} == {"text"}
    assert sum(each.requires_grad for each in top.parameters()) == len(list(top.layers.parameters()))


def test_the_network_answers_with_the_average_of_a_frozen_and_a_tuned_branch(encoder: Network, file: Path) -> None:
    ids = ids_of(encoder, file)
    both, alone = tuned(encoder, file), tuned(encoder, file, answer="tuned")
    size = features(encoder, ids, SilentContext(seed=0)).shape[1]
    halves = features(both, ids, SilentContext(seed=0))
    assert np.allclose(halves[:, :size], features(encoder, ids, SilentContext(seed=0)), atol=1e-5)
    assert np.allclose(halves[:, size:], features(alone, ids, SilentContext(seed=0)), atol=1e-5)
    assert not np.allclose(halves[:, :size], halves[:, size:], atol=1e-2)
    data = datasets.text(file=str(file), target="intent")
    assert evaluate.accuracy(data=data)(both).metrics["accuracy"].value == 100
    weight = both.tensors["classifier.weight"]
    assert weight.shape == (3, 2 * size)
    quarter = tuned(encoder, file, share=0.25).tensors["classifier.weight"]
    assert torch.allclose(quarter[:, size:] * 2, weight[:, size:], atol=1e-4)
    assert torch.allclose(alone.tensors["classifier.weight"], 2 * weight[:, size:], atol=1e-3)


@pytest.mark.slow
def test_one_package_holds_both_branches(encoder: Network, file: Path, tmp_path: Path) -> None:
    network = tuned(encoder, file)
    data = datasets.text(file=str(file), target="intent")
    save_package(export.onnx(data=data)(network), tmp_path / "package")
    texts = ["where is my lost card", "eat a pear, please eat it"]
    answers = Predictor(tmp_path / "package").predict(texts)
    ids = encoded(texts, network.signature.preprocessing, "test").ids
    wanted = forward(network.module(), ids, network.signature.preprocessing).softmax(1)
    classes = network.signature.classes or ()
    assert [answer.label for answer in answers] == [classes[number] for number in wanted.argmax(1).tolist()]
    assert [answer.probability for answer in answers] == pytest.approx(wanted.max(1).values.tolist(), abs=1e-3)


def test_every_class_of_a_batch_has_several_texts_and_every_class_comes() -> None:
    labels = np.array([0] * 9 + [1] * 2 + [2] + [3] * 5)
    batches = BalancedBatches(
        labels=labels, batch_size=6, of_class=3, generator=lambda number: np.random.default_rng(number)
    )
    assert batches.per_epoch == 3
    seen = [labels[batches[step].places] for step in range(4)]
    assert all(len(set(each)) == 2 for each in seen)
    assert {int(label) for each in seen[:2] for label in each} == {0, 1, 2, 3}
    assert all(np.bincount(each, minlength=4)[2] <= 1 for each in seen)
    assert np.array_equal(batches[2].places, batches[2].places)


def test_what_cannot_be_tuned_is_refused(encoder: Network, file: Path) -> None:
    with pytest.raises(DomainError, match="the top 3 cannot be trained over the others"):
        tuned(encoder, file, layers=3)
    with pytest.raises(DomainError, match="takes an encoder of transformers"):
        adapt.contrastive(data=datasets.digits(size=16))(
            networks.conv4(size=16, channels=1, width=4, classes=10)(seed=0)
        )
    with pytest.raises(DomainError, match="cannot have a copy"):
        tuned(tuned(encoder, file), file)


def test_mapsto_adapt_tries_it_where_the_layers_can_be_parted(encoder: Network) -> None:
    assert tunable_layers(encoder) == 1
    assert tunable_layers(networks.conv4(size=16, channels=1, width=4, classes=10)(seed=0)) == 0
    labelled = {"text": {"file": "a.csv", "target": "intent"}}
    node = {"networks.minilm": {}}
    for small, answer in ((None, None), (Small(head="classifier"), "tuned")):
        examples = Examples(labelled=labelled, augment=False, contrastive=2)
        text = adaptation_recipe(network=node, examples=examples, title="t", folds=2, small=small)
        ((step,),) = (each["fork"]["tuned_without_1"] for each in yaml.safe_load(text)["steps"] if "fork" in each)
        fields = step["adapt.contrastive"]
        assert fields["layers"] == 2
        assert fields.get("answer") == answer
