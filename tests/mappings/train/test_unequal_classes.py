"""Class weights wherever labels of classes are learnt from: a class of few examples counts as much as one of many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import context, trained

from mapsto import distill, meta, networks, quantize
from mapsto.errors import DomainError
from mapsto.kinds import Dataset, Network, Preprocessing, Samples
from mapsto.nn.network.inference import forward
from mapsto.nn.train.augmenter import Augmenter
from mapsto.nn.train.losses import class_weights


class Rare(Dataset):
    """Two classes of rows that overlap, 30 : 1."""

    values: bool = False
    """Whether the labels are values instead."""

    def fingerprint(self) -> str:
        return repr(self)

    def open(self) -> Samples:
        labels = np.repeat([0, 1], [300, 10])
        inputs = np.random.default_rng(0).standard_normal((310, 4)) + 1.0 * labels[:, None]
        return Samples(
            inputs=inputs.astype(np.float32),
            labels=inputs[:, :2].astype(np.float32) if self.values else labels,
            classes=("many", "few"),
            preprocessing=Preprocessing(kind="none"),
        )


DATA = Rare()


def recall(network: Network) -> float:
    """Share of the rare class that is found, in percent."""
    samples = DATA.open()
    outputs = forward(network.module(), samples.inputs, network.signature.preprocessing)
    return 100 * float((outputs.argmax(1).numpy() == 1)[samples.labels == 1].mean())


def fresh() -> Network:
    return networks.mlp(data=DATA, widths=(8,), classes="data")(seed=0)


def step(name: str, **fields: Any) -> tuple[Any, Network]:
    common: dict[str, Any] = {"data": DATA, "epochs": 8, "batch_size": 62, "learning_rate": 0.1, **fields}
    if name == "logits":
        return distill.logits(teacher=fresh(), alpha=0.01, **common), fresh()
    if name == "decoupled":
        return distill.decoupled(teacher=fresh(), target=0, others=0, **common), fresh()
    if name == "baseline":
        return meta.baseline(**common), networks.mlp(inputs=4, widths=(8,))(seed=0)
    return quantize.aware(**common), quantize.static(data=DATA)(fresh())


@pytest.mark.parametrize("name", ["logits", "decoupled", "aware"])
def test_a_rare_class_is_found(name: str) -> None:
    found = [recall(trained(*step(name, class_weights=how))[0]) for how in ("none", "balanced")]
    assert found[0] < 40
    assert found[1] > 70


@pytest.mark.parametrize("name", ["logits", "decoupled", "aware", "baseline"])
def test_without_weights_it_is_noted(name: str) -> None:
    mapping, network = step(name, epochs=1)
    ctx = context()
    mapping.open(network, None, ctx)
    assert any("set class_weights: balanced" in note for note in ctx.notes)


def test_weights_without_classes_are_refused() -> None:
    values = Rare(values=True)
    student = networks.mlp(data=values, widths=(8,), classes="data")(seed=0)
    for mapping in (
        distill.logits(data=values, teacher=student, class_weights="balanced", epochs=1),
        distill.logits(data=DATA, teacher=fresh(), class_weights="balanced", alpha=1, epochs=1),
    ):
        with pytest.raises(DomainError, match="class_weights: balanced, but no labels of classes are learnt from"):
            trained(mapping, fresh())
    small = quantize.static(data=values)(student)
    with pytest.raises(DomainError, match="class_weights: balanced, but the labels are not one class each"):
        trained(quantize.aware(data=values, class_weights="balanced", epochs=1), small)


def test_the_weights_make_each_class_weigh_the_same() -> None:
    labels = torch.as_tensor(DATA.open().labels)
    weights = class_weights(labels, 2)[labels]
    assert float(weights[labels == 0].sum()) == pytest.approx(float(weights[labels == 1].sum()), rel=1e-5)


def test_the_baselines_loss_weighs_its_classes() -> None:
    mapping, given = step("baseline", class_weights="balanced", epochs=1)
    ctx = context()
    item = mapping.items(given, ctx)[0]
    with torch.no_grad():
        weights = class_weights(torch.as_tensor(DATA.open().labels), 2)
        classifier = mapping._classifier(given, ctx)[0].eval()
        none = Augmenter((), ctx, classes=2)
        losses = [float(mapping._loss(given, classifier, item, each, none)) for each in (None, weights)]
        scores, labels = classifier(torch.as_tensor(item.inputs)), torch.as_tensor(item.labels)
    assert losses[1] == pytest.approx(
        float(torch.nn.functional.cross_entropy(scores, labels, weight=weights)), rel=1e-5
    )
    assert losses[0] != losses[1]
    assert mapping.open(given, None, ctx) is not None
    assert ctx.notes == []
