"""Heads that are no plain linear layer, as networks: pruned, in int8, exported, adapted again; and averages of networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.mappings.small import PREPROCESSING, Corners, context, network

from mapsto.errors import DomainError, MapstoError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.mappings.adapt.average import Average
from mapsto.mappings.adapt.centroid import Centroid
from mapsto.mappings.adapt.linear import Linear
from mapsto.mappings.adapt.nearest import Nearest
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.quantize.static import Static
from mapsto.nn.edits.root_head import rooted
from mapsto.nn.export.embedding import without_head
from mapsto.nn.export.runtimes.onnxruntime import lowered, runner
from mapsto.nn.network.head import embed, head, headed
from mapsto.nn.network.inference import forward

pytestmark = pytest.mark.usefixtures("trusted")

FEW, TEST = Corners(per_class=5), Corners(seed=1)


def right(value: Network) -> float:
    samples = TEST.open()
    scores = forward(value.module(), samples.inputs, PREPROCESSING)
    return float((scores.argmax(1).numpy() == samples.labels).mean())


def test_the_embedding_of_a_network_with_a_root_is_what_its_head_is_given() -> None:
    value = context().apply(Ridge(data=FEW, root=True), network())
    module, batch = value.module(), torch.rand(3, 1, 8, 8)
    layer = head(module)
    assert layer is not None
    with torch.no_grad():
        assert torch.equal(embed(module, batch), rooted(module.embed(batch)))  # type: ignore[operator]
        assert torch.allclose(layer.weight @ embed(module, batch)[0] + layer.bias, module(batch)[0], atol=1e-5)


def test_the_slope_of_the_root_is_finite_everywhere() -> None:
    at = torch.tensor([-4.0, 0.0, 4.0], requires_grad=True)
    rooted(at).sum().backward()
    assert at.grad is not None
    assert at.grad.isfinite().all()
    assert at.grad[2].item() == pytest.approx(0.25, rel=1e-3)


def test_another_head_forgets_the_root_and_dropout_keeps_it() -> None:
    value = context().apply(Ridge(data=FEW, root=True), network())
    plain = context().apply(Linear(data=FEW), network())
    again = context().apply(Linear(data=FEW), value)
    assert torch.equal(again.tensors["classifier.weight"], plain.tensors["classifier.weight"])
    module = value.module()
    edit, _ = headed(value, module, FEW.open().classes, dropout=0.2)
    assert type(edit).__name__ == "RootHead"
    kept = value.with_module(module, *([edit] if edit else []))
    batch = torch.rand(3, 1, 8, 8)
    assert torch.equal(kept.module()(batch), value.module()(batch))


@pytest.mark.parametrize(
    "mapping",
    [Ridge(data=FEW, root=True), pytest.param(Nearest(data=FEW), marks=pytest.mark.slow)],
    ids=lambda each: each.name,
)
def test_it_is_pruned_quantized_and_exported(mapping: Mapping[Network, Network]) -> None:
    value = context().apply(mapping, network())
    batch = np.random.default_rng(0).uniform(-1, 1, (5, 1, 8, 8)).astype(np.float32)
    scores = value.module()(torch.from_numpy(batch)).detach().numpy()
    assert np.allclose(runner(lowered(value)["model.onnx"])(batch), scores, atol=1e-4)
    if mapping.name == "adapt.ridge":
        value = context().apply(Magnitude(parameters=0.7), value)
    small = context().apply(Static(data=FEW), value)
    assert right(small) >= right(value) - 0.05
    model = lowered(small)["model.onnx"]
    module = small.module()
    with torch.no_grad():
        simulated = module(torch.from_numpy(batch)).numpy()
        features = embed(module, torch.from_numpy(batch)).numpy()
    assert np.abs(runner(model)(batch) - simulated).max() < 0.05 * np.abs(simulated).max()
    if mapping.name == "adapt.ridge":
        given = runner(without_head(model, where="test"))(batch)
        assert np.abs(given - features).max() < 0.02 * features.max()


def test_a_network_whose_examples_vote_takes_another_head() -> None:
    value = context().apply(Nearest(data=FEW, neighbours=3), network())
    assert right(value) > 0.9
    again = context().apply(Centroid(data=FEW), value)
    assert torch.equal(
        again.tensors["classifier.weight"], context().apply(Centroid(data=FEW), network()).tensors["classifier.weight"]
    )


@pytest.mark.parametrize("labels", ["multilabel", "regression"])
def test_ridge_answers_labels_that_stand_by_themselves_and_numbers(labels: str) -> None:
    few, test = Corners(per_class=8, labels=labels), Corners(seed=1, labels=labels).open()
    value = context().apply(Ridge(data=few), network())
    scores = forward(value.module(), test.inputs, PREPROCESSING).numpy()
    if labels == "multilabel":
        assert value.signature.answers == "labels"
        assert ((scores > 0) == test.labels).mean() > 0.95
    else:
        assert value.signature.answers == "values"
        assert np.abs(scores - test.labels).mean() < 0.25


def test_what_was_chosen_is_said() -> None:
    told = context()
    told.apply(Linear(data=FEW), network())
    told.apply(Ridge(data=FEW), network())
    told.apply(Nearest(data=FEW), network())
    assert [text.partition(" ")[0] for text in told.notes] == ["strength:", "ridge", "neighbours:"]
    alone = context()
    alone.apply(Linear(data=Corners(per_class=1)), network())
    assert "nothing can be left out" in alone.notes[0]


def test_classes_of_unequal_size_can_count_alike() -> None:
    for kind in (Linear, Ridge, Nearest):
        with pytest.raises(MapstoError, match=r"leave class_weights out|needs one class"):
            context().apply(kind(data=Corners(labels="regression"), class_weights="balanced"), network())
        assert right(context().apply(kind(data=FEW, class_weights="balanced"), network())) > 0.9


def test_an_average_is_chosen_on_validation_examples() -> None:
    good = context().apply(Linear(data=FEW), network())
    bad = dataclasses.replace(
        good, tensors={name: -each if "classifier" in name else each for name, each in good.tensors.items()}
    )
    told = context()
    found = told.apply(Average(base=bad, validation=TEST), good)
    assert torch.equal(found.tensors["classifier.weight"], good.tensors["classifier.weight"])
    assert told.notes[0].startswith("share: 1 of the tuned network was chosen on 48 validation examples")
    assert torch.equal(
        context().apply(Average(base=good, validation=TEST), bad).tensors["classifier.bias"],
        good.tensors["classifier.bias"],
    )
    half = context().apply(Average(base=bad), good)
    assert float(half.tensors["classifier.weight"].abs().max()) == 0
    with pytest.raises(DomainError, match="built differently"):
        context().apply(Average(base=network()), good)
