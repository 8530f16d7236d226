"""Several teachers, none, and one that the student was pruned from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, context, network, trained
from torch import Tensor

from mapsto.data.augment.crop import Crop
from mapsto.data.augment.noise import Noise
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mappings.distill.ensemble import Ensemble
from mapsto.mappings.distill.pruned import Pruned
from mapsto.mappings.distill.self import Self
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.evaluate.difference import Difference
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.resnet_cifar import ResnetCifar
from mapsto.mappings.networks.vgg import Vgg
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.distill.loop import DistillationLoop
from mapsto.nn.prune.kept_channels import kept_channels
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted")

DATA = Corners()
AUGMENT = (Crop(padding=1), Noise(std=0.025))


def conv4(width: int, seed: int = 0) -> Network:
    return Conv4(data=DATA, width=width, blocks=2, classes="data")(seed=seed)


def distillation(name: str, value: Network, **fields: Any) -> DistillationLoop:
    given: dict[str, Any] = {"data": DATA, "epochs": 2, "batch_size": 16}
    if name == "self":
        return Self(**(given | fields))
    if name == "ensemble":
        given["teachers"] = (conv4(6, seed=3), network(4))
        return Ensemble(**(given | fields))
    given["teacher"] = value
    return Pruned(**(given | fields))


def pruned(value: Network, macs: float = 0.5) -> Network:
    return context().apply(Magnitude(macs=macs), value)


@pytest.mark.parametrize("name", ["ensemble", "self", "pruned"])
def test_a_stopped_run_ends_with_the_same_bits(name: str) -> None:
    teacher = conv4(8)
    value = pruned(teacher) if name == "pruned" else conv4(4)
    before = network_digest(value)
    process = distillation(name, teacher, augment=AUGMENT, ema=0.9, validation=DATA)
    whole, metrics = trained(process, value)
    stopped, _ = trained(process, value, stop=2)
    assert network_digest(stopped) == network_digest(whole) != before == network_digest(value)
    assert whole.tensors.keys() == value.tensors.keys()
    assert "val_accuracy" in metrics[-1]


# ------------------------------------------------------------------------------------------------------------------- ensemble


def test_the_teachers_probabilities_are_averaged() -> None:
    teachers = conv4(6, seed=3), network(4)
    process = distillation("ensemble", teachers[0], teachers=teachers, temperature=2, augment=AUGMENT)
    ctx, value = context(), conv4(4)
    asked = process.make_teacher(value, DATA.open(), ctx)
    samples = DATA.open().take(np.arange(6))
    own, theirs = asked.inputs(samples.inputs, samples.labels, 0)
    torch.testing.assert_close(own.x, theirs[0], rtol=0, atol=0)
    torch.testing.assert_close(theirs[0].mean(), theirs[1].mean(), msg="the same random changes")
    scores, _ = asked.answers(theirs, [])
    expected = torch.stack([(t.module()(x) / 2).softmax(1) for t, x in zip(teachers, theirs, strict=True)]).mean(0)
    torch.testing.assert_close((scores / 2).softmax(1), expected)


def test_every_teacher_is_checked() -> None:
    with pytest.raises(DomainError, match="number 2: teacher: the teacher has 3 outputs"):
        trained(distillation("ensemble", conv4(4), teachers=(conv4(4), network(3))), conv4(4))
    broken = network(4)
    broken.tensors["norm.weight"].fill_(math.nan)
    with pytest.raises(DomainError, match="the teacher's answers hold NaN"):
        trained(distillation("ensemble", conv4(4), teachers=(conv4(4), broken)), conv4(4))


def test_a_student_of_several_comes_near_them() -> None:
    teachers = tuple(trained(Supervised(data=DATA, epochs=6, batch_size=16), conv4(8, seed))[0] for seed in (1, 2))
    student, _ = trained(distillation("ensemble", teachers[0], teachers=teachers, epochs=10), conv4(4))
    assert context().apply(Accuracy(data=Corners(seed=1)), student).metrics["accuracy"].value > 80


# ----------------------------------------------------------------------------------------------------------------------- self


def test_shallow_classifiers_learn_and_are_left_behind() -> None:
    process, value = distillation("self", conv4(4), epochs=10, exits=0.5), conv4(8)
    ctx = context()
    ctx.seed_everything("start")
    built, _, _, _ = process._student_and_teacher(value, ctx)
    scores, exits, features = built(torch.rand(5, 1, 8, 8), [])
    assert scores.shape == (5, 4)
    assert [tuple(each.shape) for each in exits] == [(5, 4)] * 2
    assert [tuple(each.shape) for each in features] == [(5, 8)] * 3
    result, _ = trained(process, value)
    assert context().apply(Accuracy(data=Corners(seed=1)), result).metrics["accuracy"].value > 80
    assert result.tensors.keys() == value.tensors.keys()


def test_the_deepest_answers_are_taught_as_they_stand() -> None:
    process = distillation("self", conv4(4), labels=0, alpha=1.0, features=0)
    value = conv4(4)
    ctx = context()
    ctx.seed_everything("start")
    built, teacher, _, _ = process._student_and_teacher(value, ctx)
    process._loss(built.train(), process.items(value, ctx)[0], built, teacher, 1).backward()
    assert dict(built.named_parameters())["student.classifier.weight"].grad is None or not bool(
        dict(built.named_parameters())["student.classifier.weight"].grad.abs().sum()  # pyright: ignore[reportOptionalMemberAccess]
    )


def test_self_needs_two_layers() -> None:
    with pytest.raises(DomainError, match="no two layers"):
        trained(distillation("self", conv4(4)), network(4))
    with pytest.raises(DomainError, match=r"no layer 'features\.7'"):
        trained(distillation("self", conv4(4), layers=("features.0", "features.7")), conv4(4))


# --------------------------------------------------------------------------------------------------------------------- pruned


@pytest.mark.parametrize(
    "family",
    [
        Conv4(data=DATA, width=8, blocks=2, classes="data"),
        Vgg(data=DATA, plan=((8, 8), (12,)), classes="data"),
        ResnetCifar(data=DATA, depth=8, width=8, classes="data"),
    ],
    ids=["conv4", "vgg", "resnet"],
)
def test_kept_channels_are_those_of_the_edits(family: Any) -> None:
    teacher: Network = family(seed=0)
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {
        name: torch.rand(tensor.shape, generator=generator) + 0.5 if tensor.is_floating_point() else tensor
        for name, tensor in teacher.tensors.items()
    }
    teacher = dataclasses.replace(teacher, tensors=tensors)
    once = pruned(teacher, 0.7)
    twice = pruned(once, 0.6)
    compared = 0
    for name, tensor in twice.tensors.items():
        if name.endswith(".running_mean"):
            kept = kept_channels(twice, teacher, name.removesuffix(".running_mean"), where="here")
            torch.testing.assert_close(tensor, teacher.tensors[name][kept], rtol=0, atol=0)
            compared += len(kept) < len(teacher.tensors[name])
    assert compared, "something was pruned"


def test_a_pruned_copy_comes_back_to_its_original() -> None:
    teacher, _ = trained(Supervised(data=DATA, epochs=6, batch_size=16), conv4(8))
    copy = pruned(teacher, 0.4)
    result, metrics = trained(distillation("pruned", teacher, labels=0, answers=0, epochs=8, learning_rate=0.01), copy)
    assert metrics[-1]["epoch_train_loss"] < 0.7 * metrics[0]["train_loss"]
    assert result.edits == copy.edits
    mapping = Difference(teacher=teacher, data=Corners(seed=1))
    far, near = (context().apply(mapping, each).metrics["kl"].value for each in (copy, result))
    assert near < far


def test_an_unpruned_copy_has_nothing_to_learn_in_evaluation() -> None:
    value = conv4(4)
    process = distillation("pruned", value, labels=0, answers=0)
    ctx = context()
    built, teacher, _, _ = process._student_and_teacher(value, ctx)
    item = process.items(value, ctx)[0]
    assert float(process._loss(built.eval(), item, built, teacher, 1).detach()) == pytest.approx(0, abs=1e-10)


def test_another_networks_copy_is_refused() -> None:
    teacher = conv4(8)
    with pytest.raises(DomainError, match="not made from the teacher by edits"):
        trained(distillation("pruned", conv4(6)), pruned(teacher))
    with pytest.raises(DomainError, match=r"the channels of 'features\.0\.2' are not known"):
        trained(distillation("pruned", teacher, layers={"features.0.2": "features.0.2"}), pruned(teacher))
