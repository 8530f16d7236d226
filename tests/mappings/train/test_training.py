from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, Small, context, network, trained

from mapsto.data.augment.affine import Affine
from mapsto.data.augment.crop import Crop
from mapsto.data.augment.mixup import Mixup
from mapsto.data.augment.noise import Noise
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network, Signature
from mapsto.mappings.adapt.finetune import Finetune
from mapsto.mappings.distill.logits import Logits, _Objective
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.evaluate.episodes import Episodes
from mapsto.mappings.meta.protonet import Protonet
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.kernels.compiled import compiled_kernels
from mapsto.nn.kernels.fuse import fuse
from mapsto.nn.train import loop as training
from mapsto.nn.train.batches import RepeatedTasks, TaskBatches
from mapsto.process import Process
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted")

DATA = Corners()
TEST = Corners(seed=1)
TASKS = EpisodesOf(data=Corners(), ways=3, shots=2, queries=3)
AUGMENT = (Affine(degrees=5), Crop(padding=1), Noise(std=0.025))


def accuracy(value: Network) -> float:
    return context().apply(Accuracy(data=TEST), value).metrics["accuracy"].value


PROCESSES: dict[str, Process[Network, Network]] = {
    "sgd": Supervised(
        data=DATA, epochs=2, batch_size=16, augment=(*AUGMENT, Mixup()), ema=0.9, clip=1.0, smoothing=0.1
    ),
    "adamw": Supervised(data=DATA, validation=TEST, epochs=2, batch_size=16, optimizer="adamw", schedule="plateau"),
    "protonet": Protonet(tasks=TASKS, steps=7, epoch=3, augment=AUGMENT, schedule="onecycle"),
    "leave one out": Protonet(tasks=TASKS, steps=7, epoch=3, leave_one_out=True, optimizer="adamw"),
    "finetune": Finetune(data=DATA, epochs=3, batch_size=16, dropout=0.3),
    "logits": Logits(data=DATA, teacher=network(4, seed=3), epochs=2, batch_size=16, augment=AUGMENT, features=1.0),
    "tasks": Logits(tasks=TASKS, teacher=network(seed=3), steps=7, epoch=3, augment=AUGMENT, features=1.0),
    "tasks again": Logits(
        tasks=TASKS, teacher=network(seed=3), steps=7, epoch=3, augment=AUGMENT, features=1.0, distinct_steps=3
    ),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_stopped_run_ends_with_the_same_bits(name: str) -> None:
    value = network(4)
    before = network_digest(value)
    whole, metrics = trained(PROCESSES[name], value)
    stop = 1 + sum(map(ord, name)) % (len(metrics) - 1)
    stopped, _ = trained(PROCESSES[name], value, stop=stop)
    assert network_digest(stopped) == network_digest(whole)
    assert network_digest(whole) != before == network_digest(value)
    whole.module()


def test_supervised_learns_replaces_the_head_and_reports_epochs() -> None:
    process = Supervised(data=DATA, validation=TEST, epochs=6, batch_size=16)
    result, metrics = trained(process, network())
    assert accuracy(result) > 90
    assert result.signature.classes == DATA.open().classes
    assert result.signature.outputs[0].shape == ("N", 4)
    ends = [m for m in metrics if "epoch" in m]
    assert [m["epoch"] for m in ends] == [1, 2, 3, 4, 5, 6]
    assert set(ends[-1]) == {"train_loss", "lr", "epoch", "epoch_train_loss", "val_loss", "val_accuracy"}
    assert math.isclose(ends[0]["epoch_train_loss"], float(np.mean([m["train_loss"] for m in metrics[:3]])))
    again, _ = trained(Supervised(data=DATA, epochs=1), result)
    assert len(again.edits) == 1, "the head fits already"


@pytest.mark.parametrize(("labels", "answers"), [("multilabel", "labels"), ("regression", "values")])
def test_supervised_learns_other_targets(labels: str, answers: str) -> None:
    result, metrics = trained(
        Supervised(data=Corners(labels=labels), epochs=8, batch_size=16, learning_rate=0.05), network()
    )
    assert metrics[-1]["epoch_train_loss"] < 0.7 * metrics[0]["train_loss"]
    assert result.signature.answers == answers
    assert Signature.from_plain(result.signature.plain()) == result.signature
    assert "answers" not in network().signature.plain(), "digests of classifiers are as they were"


def test_balanced_weights_change_the_loss() -> None:
    data = Corners()
    plain, weighted = (
        trained(Supervised(data=data, epochs=1, class_weights=weights), network())[1]
        for weights in ("none", "balanced")
    )
    assert plain[0] == pytest.approx(weighted[0], rel=1e-5), "the classes are balanced already"


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="only one class"):
        trained(Supervised(data=Corners(labels="one")), network())
    with pytest.raises(DataError, match="nan"):
        trained(Supervised(data=Corners(labels="nan")), network())
    with pytest.raises(DomainError, match=r"diverged at step \d+: the loss is"):
        trained(Supervised(data=DATA, learning_rate=1e20, schedule="constant"), network())
    with pytest.raises(SpecError, match="learning_rate"):
        Supervised(data=DATA, learning_rate=0)
    with pytest.raises(
        DomainError, match=r"loss is classification, but the labels, float32 of shape \(48, 4\), are for mul"
    ):
        trained(Supervised(data=Corners(labels="multilabel"), loss="classification"), network())
    with pytest.raises(DomainError, match="loss is regression, but the labels"):
        trained(Supervised(data=DATA, loss="regression"), network())
    with pytest.raises(DomainError, match="class_weights: balanced, but the labels are not one class each"):
        trained(Supervised(data=Corners(labels="regression"), class_weights="balanced"), network())
    with pytest.raises(SpecError, match="either data or tasks"):
        Logits(teacher=network(), data=DATA, tasks=TASKS)
    with pytest.raises(SpecError, match="distinct_steps goes with tasks"):
        Logits(teacher=network(4), data=DATA, distinct_steps=3)
    with pytest.raises(SpecError, match="distinct_steps"):
        Logits(teacher=network(), tasks=TASKS, distinct_steps=0)
    with pytest.raises(DomainError, match="teacher has 3 outputs"):
        trained(Logits(teacher=network(3), data=DATA), network())
    broken = network(4)
    broken.tensors["norm.weight"].fill_(math.nan)
    with pytest.raises(DomainError, match="teacher's answers hold NaN"):
        trained(Logits(teacher=broken, data=DATA), network())


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_protonet_learns_a_learner(leave_one_out: bool) -> None:
    value = network(width=2)
    process = Protonet(
        tasks=TASKS, validation=TASKS, steps=40, epoch=20, learning_rate=0.01, leave_one_out=leave_one_out
    )
    result, metrics = trained(process, value)
    assert result.adaptation is not None
    assert result.signature.classes is None
    before, after = (context().apply(Episodes(tasks=TASKS, episodes=50), each).metrics for each in (value, result))
    assert after["loss"].value < 0.2 * before["loss"].value
    assert metrics[-1]["val_accuracy"] > 90


@pytest.mark.skipif(not compiled_kernels(), reason="no compiler")
@pytest.mark.parametrize("name", ["sgd", "protonet", "tasks"])
def test_layers_in_one_pass_train_to_the_same_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = context().apply(Conv4(data=DATA, width=16, blocks=2), None)
    process = PROCESSES[name]
    if name == "tasks":
        process = Logits(tasks=TASKS, teacher=value, steps=7, epoch=3)
    made: list[torch.nn.Module] = []
    monkeypatch.setattr(training, "fuse", lambda *given, **named: made.append(fuse(*given, **named)) or made[-1])
    fast, metrics = trained(process, value)
    stopped, _ = trained(process, value, stop=4)
    assert len(made) == 3, "each start of a training"
    assert network_digest(stopped) == network_digest(fast)
    monkeypatch.setattr(training, "is_fusable", lambda _: False)
    plain, expected = trained(process, value)
    assert len(made) == 3
    assert metrics[-1]["train_loss"] == pytest.approx(expected[-1]["train_loss"], rel=1e-2)
    assert fast.tensors.keys() == plain.tensors.keys()
    for tensor, other in zip(fast.tensors.values(), plain.tensors.values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0.02, atol=0.02)


def test_the_drop_is_paired() -> None:
    one, other = network(width=1), network(width=1, seed=4)
    mapping = Episodes(tasks=EpisodesOf(data=Corners(), ways=4, shots=1, queries=5), episodes=40, baseline=other)
    report = context().apply(mapping, one).metrics
    assert report["drop"].value == pytest.approx(report["baseline"].value - report["accuracy"].value)
    assert report["drop"].n == 40
    assert 0 < report["accuracy"].ci95 < 10
    assert context().apply(mapping, other).metrics["drop"].value == 0


def test_a_student_comes_near_its_teacher() -> None:
    teacher, _ = trained(Supervised(data=DATA, epochs=6, batch_size=16), network())
    student, _ = trained(Logits(teacher=teacher, data=DATA, epochs=6, batch_size=16, alpha=1.0), network(width=4))
    assert accuracy(student) > 90
    learner, metrics = trained(
        Logits(teacher=teacher, tasks=TASKS, steps=30, epoch=10, optimizer="adam", learning_rate=0.01), network(width=4)
    )
    assert learner.adaptation is not None
    assert metrics[-1]["epoch_train_loss"] < 0.5 * metrics[0]["train_loss"]


def repeating(distinct_steps: int | None) -> Logits:
    return Logits(
        tasks=TASKS,
        teacher=network(seed=3),
        steps=7,
        epoch=3,
        tasks_per_step=2,
        augment=AUGMENT,
        distinct_steps=distinct_steps,
    )


def test_as_many_distinct_steps_as_steps_change_nothing() -> None:
    plain, whole, fewer = (trained(repeating(count), network())[0] for count in (None, 7, 6))
    assert network_digest(plain) == network_digest(whole) != network_digest(fewer)


def test_the_teacher_answers_tasks_that_come_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor] = []
    forward = Small.forward

    def counted(self: Small, x: torch.Tensor) -> torch.Tensor:
        if not self.training and bool(x.any()):  # not the zeros that only measure the output
            asked.append(x)
        return forward(self, x)

    monkeypatch.setattr(Small, "forward", counted)
    known, metrics = trained(repeating(3), network())
    assert len(asked) == 3
    assert len(metrics) == 7
    assert not any(torch.equal(asked[0], other) for other in asked[1:])
    asked.clear()
    resumed, _ = trained(repeating(3), network(), stop=4)
    assert 4 <= len(asked) <= 6, "three before the stop; after it those that are still to come, again"
    monkeypatch.setattr(_Objective, "_known", property(lambda _: {}, lambda _self, _value: None), raising=False)
    asked.clear()
    anew, _ = trained(repeating(3), network())
    assert len(asked) == 7
    assert [sum(torch.equal(one, other) for other in asked[:3]) for one in asked[3:]] == [1, 1, 1, 1]
    assert network_digest(known) == network_digest(anew) == network_digest(resumed)


def test_tasks_come_again_in_new_orders() -> None:
    tasks = TaskBatches(TASKS.open(), 2, context().fabric)
    again = RepeatedTasks(tasks, 5, np.random.default_rng)
    orders = [[again[step].step for step in range(start, start + 5)] for start in (0, 5, 10)]
    assert orders[0] == [0, 1, 2, 3, 4]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert again[3].step == 3, "asked for earlier steps again, it gives the same"
    np.testing.assert_array_equal(again[7].inputs, tasks[orders[1][2]].inputs)
    assert again[0].again
    assert not tasks[0].again


def test_finetuning_stops_once_converged() -> None:
    few, noise = Corners(per_class=3), Corners(labels="noise")
    _, metrics = trained(Finetune(data=few, validation=noise, epochs=500, patience=1, stop_after=500), network())
    assert len(metrics) < 100
    assert metrics[-1]["lr"] == pytest.approx(1e-6)
    fields: dict[str, Any] = {"begin": "random", "patience": 100, "stop_after": 4}
    _, shorter = trained(Finetune(data=few, validation=noise, epochs=500, **fields), network())
    best = min(range(len(shorter)), key=lambda step: shorter[step]["val_loss"])
    assert len(shorter) in (4, best + 5)  # 4 epochs after the best, which may be the beginning


def test_finetuning_leaves_a_frozen_embedding_alone() -> None:
    value = network()
    result, _ = trained(Finetune(data=DATA, epochs=2, freeze="embedding", begin="random"), value)
    changed = {name for name, tensor in value.tensors.items() if not torch.equal(tensor, result.tensors[name])}
    assert changed == set()
    assert {"classifier.weight", "classifier.bias"} <= result.tensors.keys()
