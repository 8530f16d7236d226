"""Distillation of values, several labels at once, and dense outputs: right, or refused with the mapping that is right."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
import torch
from tests.foreign import Noise, UNet

from mapsto import distill, evaluate, networks, train
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Dataset, Network, Preprocessing, Samples, trusting


class Rows(Dataset):
    """Rows of four numbers and what follows from them: one value, two labels, or a class."""

    answers: Literal["values", "labels", "classes"] = "values"
    """What the labels are."""
    count: int = 256
    """How many."""

    def fingerprint(self) -> str:
        return f"rows {self.answers} {self.count}"

    def open(self) -> Samples:
        x = np.random.default_rng(0).standard_normal((self.count, 4)).astype(np.float32)
        y = x @ np.array([[3.0, 1.0], [-2.0, 2.0], [0.0, -1.0], [1.0, 0.0]], np.float32)
        labels = {
            "values": 10 + y[:, :1],
            "labels": (y > 0).astype(np.float32),
            "classes": (y[:, 0] > 0).astype(np.int64),
        }
        names = ("value",) if self.answers == "values" else ("a", "b")
        return Samples(inputs=x, labels=labels[self.answers], classes=names, preprocessing=Preprocessing(kind="none"))


def trained(data: Rows, width: int) -> Network:
    outputs = 1 if data.answers == "values" else 2
    network = networks.mlp(inputs=4, classes=outputs, widths=(width,))(seed=0)
    return train.supervised(data=data, epochs=30, batch_size=32, learning_rate=0.02)(network, seed=0)


def rmse(network: Network, data: Rows) -> float:
    return evaluate.accuracy(data=data)(network).metrics["rmse"].value


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_values_are_imitated_as_values(alpha):
    data = Rows()
    teacher = trained(data, 32)
    student = networks.mlp(inputs=4, classes=1, widths=(16,))(seed=1)
    distilled = distill.logits(data=data, teacher=teacher, alpha=alpha, epochs=30, batch_size=32, learning_rate=0.02)(
        student, seed=0
    )
    assert distilled.signature.answers == "values"
    assert rmse(teacher, data) < 1
    assert rmse(student, data) > 5
    assert rmse(distilled, data) < 1.2


def test_training_shows_the_rmse():
    data = Rows(count=64)
    network = networks.mlp(inputs=4, classes=1, widths=(4,))(seed=0)
    named = dataclasses.replace(network.signature, classes=("value",), answers="values")
    network = dataclasses.replace(network, signature=named)
    for mapping in (
        train.supervised(data=data, validation=data, epochs=1, batch_size=32),
        distill.logits(data=data, validation=data, teacher=network, epochs=1, batch_size=32),
    ):
        ctx = Context()
        live = mapping.open(network, None, ctx)
        items = mapping.items(network, ctx)
        rows = [metrics for step in range(2) for _, metrics in live.advance(items[step])]
        outputs = live.module.eval()(torch.as_tensor(data.open().inputs)).detach().numpy()
        expected = float(np.sqrt(np.mean((outputs - data.open().labels) ** 2)))
        assert rows[-1]["val_rmse"] == pytest.approx(expected, rel=1e-4)


def test_labels_are_imitated_each_by_itself():
    data = Rows(answers="labels")
    teacher = trained(data, 32)
    student = networks.mlp(inputs=4, classes=2, widths=(16,))(seed=1)
    distilled = distill.logits(data=data, teacher=teacher, alpha=1, epochs=20, batch_size=32)(student, seed=0)
    assert distilled.signature.answers == "labels"
    x, y = torch.as_tensor(data.open().inputs), torch.as_tensor(data.open().labels)
    right = [float(((network.module()(x) > 0) == (y > 0)).float().mean()) for network in (student, distilled)]
    assert right[0] < 0.8
    assert right[1] > 0.95


def test_a_teacher_of_values_does_not_go_with_labels_of_classes():
    teacher = networks.mlp(inputs=4, classes=1, widths=(4,))(seed=0)
    teacher = train.supervised(data=Rows(count=64), epochs=1, batch_size=32)(teacher)
    with pytest.raises(DomainError, match="the teacher answers values, but the labels"):
        distill.logits(data=Rows(answers="classes"), teacher=teacher)(teacher)


@pytest.mark.parametrize("name", ["dist", "decoupled", "hints", "relational", "self", "attention", "ensemble"])
def test_what_compares_classes_names_what_does_not(name):
    data = Rows(count=64)
    network = networks.mlp(inputs=4, classes=1, widths=(4,))(seed=0)
    fields = {"self": {}, "ensemble": {"teachers": (network,)}}.get(name, {"teacher": network})
    with pytest.raises(DomainError, match=rf"distill.{name}: data: .*use distill.logits"):
        getattr(distill, name)(data=data, **fields)(network)


def test_a_dense_output_is_imitated_without_labels():
    torch.manual_seed(0)
    data = Noise(shape=(3, 8, 8), count=16)
    with trusting("tests"):
        x = torch.as_tensor(data.open().inputs)
        teacher, student = (
            Network.from_module(UNet(width=width).eval(), x[:2], arguments={"width": width}) for width in (4, 2)
        )
        mapping = distill.logits(data=data, teacher=teacher, alpha=1, epochs=6, batch_size=8, learning_rate=0.05)
        distilled = mapping(student, seed=0)
        assert distilled.signature.outputs[0].shape == ("N", 3, 8, 8)
        far = [float((net.module()(x) - teacher.module()(x)).detach().square().mean()) for net in (student, distilled)]
        assert far[1] < far[0] / 2
        with pytest.raises(DomainError, match="set alpha: 1"):
            distill.logits(data=data, teacher=teacher)(student)
        with pytest.raises(DomainError, match=r"distill.dist: teacher: .*dense.*alpha: 1"):
            distill.dist(data=data, teacher=teacher)(student)


def test_dense_outputs_differ_sample_by_sample_and_pixel_by_pixel():
    torch.manual_seed(0)
    data = Noise(shape=(3, 8, 8), count=8)
    with trusting("tests"):
        x = torch.as_tensor(data.open().inputs)
        one, other = (Network.from_module(UNet(width=2).eval(), x[:2], arguments={"width": 2}) for _ in range(2))
        metrics = evaluate.difference(teacher=one, data=data, layers=("out",), teacher_layers=("out",))(other).metrics
        ours, theirs = other.module()(x).detach().double(), one.module()(x).detach().double()
    centred = [each.flatten(1) - each.flatten(1).mean(1, keepdim=True) for each in (ours, theirs)]
    cosine = torch.cosine_similarity(*centred).mean()
    assert metrics["cosine"].value == pytest.approx(1 - float(cosine), rel=1e-4)
    same = (ours.argmax(1) == theirs.argmax(1)).double().mean()
    assert metrics["agreement"].value == pytest.approx(100 * float(same), abs=0.01)
