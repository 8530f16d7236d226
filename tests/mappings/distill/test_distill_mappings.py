"""What every mapping of the family `distill` does besides its loss: layers, the frozen teacher, stopping, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.mappings.small import Corners, Plain, context, network, trained
from torch import nn

from mapsto.data.augment.crop import Crop
from mapsto.data.augment.noise import Noise
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.distill.attention import Attention
from mapsto.mappings.distill.contrastive import Contrastive
from mapsto.mappings.distill.decoupled import Decoupled
from mapsto.mappings.distill.dist import Dist
from mapsto.mappings.distill.hints import Hints
from mapsto.mappings.distill.relational import Relational
from mapsto.mappings.distill.review import Review
from mapsto.mappings.distill.similarity import Similarity
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.evaluate.difference import Difference
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.resnet_cifar import ResnetCifar
from mapsto.mappings.networks.vgg import Vgg
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.distill.loop import Distillation
from mapsto.nn.distill.teacher_student import StudentWithProjectors
from mapsto.nn.network.examples import example_batch
from mapsto.nn.network.features import EMBEDDING, capturing, last_of_each_resolution, matched, output_shapes
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted")

DATA = Corners()
AUGMENT = (Crop(padding=1), Noise(std=0.025))
KINDS: dict[str, Callable[..., Distillation]] = {
    "attention": Attention,
    "contrastive": Contrastive,
    "decoupled": Decoupled,
    "dist": Dist,
    "hints": Hints,
    "relational": Relational,
    "review": Review,
    "similarity": Similarity,
}
LAYERWISE = [name for name in KINDS if name not in ("decoupled", "dist")]


def conv4(width: int, seed: int = 0) -> Network:
    return Conv4(data=DATA, width=width, blocks=2, classes="data")(seed=seed)


def distilled(name: str, teacher: Network, **fields: Any) -> Distillation:
    return KINDS[name](**{"data": DATA, "teacher": teacher, "epochs": 2, "batch_size": 16, **fields})


@pytest.mark.parametrize("name", KINDS)
def test_a_stopped_run_ends_with_the_same_bits(name: str) -> None:
    value, teacher = conv4(4), conv4(6, seed=3)
    digests = network_digest(value), network_digest(teacher)
    process = distilled(name, teacher, augment=AUGMENT, ema=0.9, ramp=1, validation=DATA)
    whole, metrics = trained(process, value)
    stopped, _ = trained(process, value, stop=2)
    assert network_digest(stopped) == network_digest(whole) != digests[0]
    assert (network_digest(value), network_digest(teacher)) == digests
    assert whole.tensors.keys() == value.tensors.keys(), "what only training needs is left behind"
    assert whole.edits == ()
    assert "val_accuracy" in metrics[-1]


@pytest.mark.parametrize("name", KINDS)
def test_gradients_flow_into_the_student_and_its_projectors_alone(name: str) -> None:
    value = conv4(4)
    process = distilled(name, conv4(6, seed=3), labels=0)
    ctx = context()
    ctx.seed_everything("start")
    trained_student, teacher, _, _ = process._student_and_teacher(value, ctx)
    item = process.items(value, ctx)[0]
    process._loss(trained_student.train(), item, trained_student, teacher, 1).backward()
    assert all(parameter.grad is None for parameter in teacher.module.parameters())
    assert not teacher.module.training
    grads = {key: parameter.grad for key, parameter in trained_student.named_parameters()}
    first = grads["student.features.0.0.weight"]
    assert first is not None
    assert float(first.abs().sum()) > 0
    assert all(grad is not None for key, grad in grads.items() if key.startswith("regressors."))


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_falls(name: str) -> None:
    teacher, _ = trained(Supervised(data=DATA, epochs=6, batch_size=16), conv4(8))
    result, metrics = trained(distilled(name, teacher, epochs=8), conv4(4, seed=1))
    ends = [m["epoch_train_loss"] for m in metrics if "epoch" in m]
    assert ends[-1] < ends[0]
    assert context().apply(Accuracy(data=Corners(seed=1)), result).metrics["accuracy"].value > 80


def test_the_weight_of_what_is_imitated_rises() -> None:
    teacher, value = conv4(6, seed=3), conv4(4)
    at_once, _, ramped = (
        trained(distilled("dist", teacher, labels=labels, ramp=ramp, learning_rate=1e-9), value)[1]
        for labels, ramp in ((0, 0), (1, 0), (0, 2))
    )
    for step, (full, part) in enumerate(zip(at_once, ramped, strict=True)):
        assert part["train_loss"] == pytest.approx(full["train_loss"] * (step + 1) / 6, rel=1e-3)


def test_answers_are_taught_beside_the_layers() -> None:
    teacher, value = conv4(6, seed=3), conv4(4)
    alone, both = (
        trained(distilled("attention", teacher, labels=0, weight=0, answers=answers, epochs=1), value)[1][0]
        for answers in (0, 2)
    )
    assert alone["train_loss"] == 0
    assert both["train_loss"] > 0


# --------------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            Vgg(depth=8, width=2, classes=3),
            {0: "features.2", 1: "features.6", 2: "features.10", 3: "features.14", 4: "features"},
        ),
        (Vgg(depth=16, width=2, stages=2, classes=3), {0: "features.5", 1: "features"}),
        (ResnetCifar(depth=8, classes=3), {0: "layer1", 1: "layer2", 2: "layer3"}),
        (
            Conv4(size=32, channels=1),
            {0: "features.0.2", 1: "features.1.2", 2: "features.2.2", 3: "features.3.2", 4: "features"},
        ),
    ],
)
def test_the_last_layer_of_each_resolution(network: Any, expected: dict[int, str]) -> None:
    value: Network = network(seed=0)
    example = example_batch(value)
    shapes = output_shapes(value.module(), example)
    assert last_of_each_resolution(shapes, tuple(example.shape[2:])) == expected
    assert len(shapes[EMBEDDING]) == 2


def test_layers_are_matched_by_resolution_between_unlike_networks() -> None:
    student, teacher = Conv4(size=28, channels=3, width=4)(seed=0), ResnetCifar(depth=8)(seed=0)
    pairs = matched(
        student.module(), teacher.module(), (example_batch(student), example_batch(teacher)), None, where="here"
    )
    assert pairs == [("features.0.2", "layer1"), ("features.1.2", "layer2"), ("features.2.2", "layer3")]


def test_networks_without_maps_are_matched_by_their_embeddings() -> None:
    net = Plain()
    example = torch.zeros(2, 1, 8, 8)
    assert matched(net, net, (example, example), None, where="here") == [(EMBEDDING, EMBEDDING)]
    with capturing(net, [EMBEDDING, "1"]) as seen:
        net(torch.randn(3, 1, 8, 8))
    torch.testing.assert_close(seen[EMBEDDING], seen["1"].relu())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize("name", LAYERWISE)
def test_layers_can_be_named(name: str) -> None:
    process = distilled(name, conv4(6, seed=3), layers={"features.1": "features.1.2"}, epochs=1)
    ctx = context()
    ctx.seed_everything("start")
    assert process._student_and_teacher(conv4(4), ctx)[0].pairs == (("features.1", "features.1.2"),)
    trained(process, conv4(4))


def test_projectors_are_part_of_the_state() -> None:
    process, value = distilled("hints", conv4(6, seed=3)), conv4(4)
    tensors = process.open(value, None, context()).snapshot()["tensors"]
    assert {name.partition(".")[0] for name in tensors} == {"student", "regressors"}
    trained_student = StudentWithProjectors(nn.Linear(2, 2), [], None)
    assert list(trained_student.state_dict()) == ["student.weight", "student.bias"]


# ------------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", KINDS)
def test_what_is_refused(name: str) -> None:
    value = conv4(4)
    with pytest.raises(DomainError, match=r"teacher has the classes 0, 1, 2, but the data has 4.*"):
        trained(distilled(name, Conv4(data=DATA, width=4, blocks=2, classes=3)(seed=0)), value)
    broken = conv4(4)
    broken.tensors["classifier.weight"].fill_(math.nan)
    with pytest.raises(DomainError, match="the teacher's answers hold NaN") as found:
        trained(distilled(name, broken), value)
    assert str(found.value).startswith(f"distill.{name}: teacher")
    with pytest.raises(DataError, match="only one class"):
        trained(distilled(name, value, data=Corners(labels="one")), value)
    with pytest.raises(DataError, match="nan"):
        trained(distilled(name, value, data=Corners(labels="nan")), value)
    with pytest.raises((DataError, DomainError), match=r"one class for each sample|use distill\.logits"):
        trained(distilled(name, value, data=Corners(labels="multilabel")), value)


@pytest.mark.parametrize("name", LAYERWISE)
def test_unknown_layers_are_refused_with_the_nearest(name: str) -> None:
    teacher = conv4(6)
    for layers, message in (
        (
            {"feature.1": "features.1"},
            "the student has no layer 'feature.1' that gives a tensor; did you mean 'features.1'",
        ),
        (
            {"features.1": "featurs.0"},
            "the teacher has no layer 'featurs.0' that gives a tensor; did you mean 'features.0'",
        ),
    ):
        with pytest.raises(DomainError, match="no layer") as found:
            trained(distilled(name, teacher, layers=layers), conv4(4))
        assert f"distill.{name}: layers: {message}" in str(found.value)
    with pytest.raises(SpecError, match="layers"):
        distilled(name, teacher, layers={})


def test_maps_cannot_be_compared_with_vectors() -> None:
    for name, message in (
        ("hints", "match maps"),
        ("attention", "attention needs maps"),
        ("review", "review needs maps"),
    ):
        with pytest.raises(DomainError, match=message) as found:
            trained(distilled(name, conv4(4), layers={EMBEDDING: "features.1"}), conv4(4))
        assert f"distill.{name}: layers" in str(found.value)


# ----------------------------------------------------------------------------------------------------------------- evaluation


def test_difference_of_a_network_from_itself_is_nothing() -> None:
    value = conv4(4)
    report = context().apply(Difference(teacher=value, data=DATA, batch_size=16), value)
    for name in ("kl", "js", "euclidean", "cosine", "correlation"):
        assert report.metrics[name].value == pytest.approx(0, abs=1e-9)
    assert report.metrics["agreement"].value == 100
    table = report.tables["cka"]
    assert table.columns == ("student \\ teacher", "features.0.2", "features.1.2", EMBEDDING)
    for number, row in enumerate(table.rows):
        assert row[0] == table.columns[number + 1]
        assert row[number + 1] == pytest.approx(1)
        assert report.metrics[f"cka.{row[0]}"].value == pytest.approx(1)


def test_difference_sees_a_student_come_nearer() -> None:
    teacher, _ = trained(Supervised(data=DATA, epochs=6, batch_size=16), conv4(8))
    before = conv4(4, seed=1)
    after, _ = trained(distilled("similarity", teacher, epochs=8, answers=1), before)
    mapping = Difference(teacher=teacher, data=Corners(seed=1))
    far, near = (context().apply(mapping, each).metrics for each in (before, after))
    assert near["kl"].value < far["kl"].value
    assert near["agreement"].value > far["agreement"].value
    assert near["cka.embedding"].value > far["cka.embedding"].value


def test_difference_compares_named_layers_of_unlike_networks() -> None:
    mapping = Difference(
        teacher=network(4, width=8), data=DATA, layers=("features.0",), teacher_layers=("conv", "norm")
    )
    report = context().apply(mapping, conv4(4))
    assert report.tables["cka"].columns == ("student \\ teacher", "conv", "norm")
    assert len(report.tables["cka"].rows) == 1
    with pytest.raises(DomainError, match=r"no layer 'features\.9'.*did you mean 'features"):
        context().apply(Difference(teacher=network(4), data=DATA, layers=("features.9",)), conv4(4))
    with pytest.raises(DomainError, match=r"the network answers \(4,\), the teacher \(3,\)"):
        context().apply(Difference(teacher=network(3), data=DATA), conv4(4))
    with pytest.raises(DomainError, match="too few"):
        context().apply(Difference(teacher=network(4), data=Corners(per_class=1, classes=3)), conv4(4))
