"""Students derived from their teacher: every tensor is the teacher's, sliced so that the network still fits together."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mappings.small import Corners, context, trained
from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Adaptation, Network
from mapsto.mappings.distill.student import Student
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.networks.resnet_cifar import ResnetCifar
from mapsto.mappings.networks.vgg import Vgg
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.train.supervised import Supervised

DATA = Corners(per_class=24)
FAMILIES: dict[str, Any] = {
    "conv4": Conv4(size=16, channels=3, width=8, blocks=3, classes=5),
    "conv4 strides": Conv4(size=20, channels=3, width=8, blocks=3, classes=5, downsampling="stride"),
    "conv4 halved twice": Conv4(size=12, channels=3, width=8, blocks=3, classes=5, halvings=2),
    "conv4 of widths": Conv4(size=12, channels=3, width=(6, 8, 12), blocks=3, classes=5),
    "vgg": Vgg(plan=((8,), (12, 16), (8, 6, 10)), classes=5),
    "resnet A": ResnetCifar(depth=20, width=8, classes=5),
    "resnet B": ResnetCifar(depth=8, width=8, classes=5, shortcut="B"),
}


def student_of(value: Network, **fields: Any) -> Network:
    return context().apply(Student(**fields), value)


def lively(value: Network, seed: int = 0) -> Network:
    """With statistics and scales that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, tensor in value.tensors.items():
        noise = torch.rand(tensor.shape, generator=generator)
        tensors[name] = noise + 0.5 if tensor.ndim == 1 and tensor.is_floating_point() else tensor
    return dataclasses.replace(value, tensors=tensors)


def answers(value: Network, seed: int = 1) -> Tensor:
    inputs = torch.randn(value.signature.input_shape(4), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return value.module()(inputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_at_full_size_the_student_is_the_teacher(name: str) -> None:
    teacher = lively(FAMILIES[name](seed=0))
    student = student_of(teacher, width=1)
    assert student.tensors.keys() == teacher.tensors.keys()
    torch.testing.assert_close(answers(student), answers(teacher), rtol=0, atol=0)


@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(list(FAMILIES)), width=st.sampled_from([0.25, 0.5, 0.75]), seed=st.integers(0, 2**31))
def test_without_channels_that_are_silent_the_answers_are_the_same(name: str, width: float, seed: int) -> None:
    teacher = lively(FAMILIES[name](seed=0), seed)
    generator = torch.Generator().manual_seed(seed)
    tensors = {key: tensor.clone() for key, tensor in teacher.tensors.items()}
    silent: dict[int, Tensor] = {}
    for key in [key for key in tensors if key.endswith("running_mean")]:
        path = key.removesuffix(".running_mean")
        size = len(tensors[key])
        stream = (name.startswith("resnet") and not path.endswith("bn1")) or path == "bn1"
        off = torch.randperm(size, generator=generator)[: size - round(width * size)]
        if stream:
            if size not in silent:
                silent[size] = _ends(silent.get(size // 2), size, width) if name == "resnet A" else off
            off = silent[size]
        tensors[f"{path}.weight"][off] = 0
        tensors[f"{path}.bias"][off] = 0
    teacher = dataclasses.replace(teacher, tensors=tensors)
    student = student_of(teacher, width=width)
    assert sum(t.numel() for t in student.tensors.values()) < sum(t.numel() for t in tensors.values())
    torch.testing.assert_close(answers(student), answers(teacher), rtol=1e-4, atol=1e-5)


def _ends(before: Tensor | None, size: int, width: float) -> Tensor:
    """Silent channels that padded shortcuts can leave out: those of the stage before in the middle, and of either end."""
    if before is None:
        return torch.arange(size)[: size - round(width * size)]
    quarter = size // 4
    few = quarter - round(width * size / 2) // 2
    return torch.cat([torch.arange(few), quarter + before, size - 1 - torch.arange(quarter - round(width * size / 4))])


def test_merged_layers_are_those_of_the_teacher_where_nothing_is_cut_off() -> None:
    three = lively(Vgg(plan=((3, 4, 5), (6, 7)), channels=2, size=9, classes=3)(seed=0))
    assert student_of(three, width=1, depth=8).arch.arguments["plan"] == [[5], [7]]
    pair = lively(Vgg(plan=((3, 4),), channels=2, size=9, classes=3)(seed=0))
    impulse = torch.zeros(1, 2, 9, 9)
    impulse[0, 1, 4, 4] = 1
    merged = student_of(pair, width=1, depth=8).tensors["features.0.weight"]
    scale = pair.tensors["features.1.weight"] / (pair.tensors["features.1.running_var"] + 1e-5).sqrt()
    out = functional.conv2d(impulse, pair.tensors["features.0.weight"], padding=1) * scale[:, None, None]
    out = functional.conv2d(out, pair.tensors["features.3.weight"], padding=1)
    torch.testing.assert_close(functional.conv2d(impulse, merged, padding=1)[0, :, 3:6, 3:6], out[0, :, 3:6, 3:6])


@pytest.mark.parametrize(
    ("family", "depth", "blocks"),
    [(ResnetCifar(depth=20, classes=5), 8, [0]), (ResnetCifar(depth=32, classes=5), 20, [0, 1, 3])],
)
def test_blocks_are_spread_over_the_stage(family: Any, depth: int, blocks: list[int]) -> None:
    teacher = lively(family(seed=0))
    student = student_of(teacher, width=1, depth=depth)
    for new, old in enumerate(blocks):
        for part in ("conv1.weight", "bn2.running_mean"):
            torch.testing.assert_close(
                student.tensors[f"layer2.{new}.{part}"], teacher.tensors[f"layer2.{old}.{part}"], rtol=0, atol=0
            )
    assert answers(student).shape == (4, 5)


def test_fewer_blocks_of_conv4_begin_with_a_new_head() -> None:
    teacher = FAMILIES["conv4"](seed=0)
    student = student_of(teacher, width=0.5, depth=2)
    assert student.arch.arguments["blocks"] == 2
    assert answers(student).shape == (4, 5)


def test_a_trained_teacher_gives_a_better_start() -> None:
    teacher, _ = trained(
        Supervised(data=DATA, epochs=6, batch_size=16), Conv4(data=DATA, width=16, blocks=2, classes=7)(seed=0)
    )
    assert teacher.edits, "its head was replaced"
    student = student_of(teacher, width=0.5)
    assert student.edits == ()
    assert student.signature.classes == teacher.signature.classes
    size = context().apply(Size(baseline=teacher), student).metrics
    assert size["macs_ratio"].value > 2.5
    begun = Conv4(data=DATA, width=8, blocks=2, classes="data")(seed=1)
    fine = Supervised(data=DATA, epochs=1, batch_size=16, learning_rate=0.02)
    derived, fresh = (
        context().apply(Accuracy(data=Corners(seed=1)), trained(fine, value)[0]).metrics["accuracy"].value
        for value in (student, begun)
    )
    assert derived > fresh + 10


def test_what_is_refused() -> None:
    teacher = FAMILIES["vgg"](seed=0)
    with pytest.raises(
        DomainError, match=r"cannot be derived from mapsto\.nn\.networks\.mlp:mlp.*conv4, resnet_cifar, vgg"
    ):
        student_of(Mlp(inputs=4, widths=(3,))(seed=0))
    with pytest.raises(DomainError, match=r"edited \(Channels\)"):
        student_of(context().apply(Magnitude(macs=0.5), teacher))
    with pytest.raises(DomainError, match="depth is 19, but the teacher allows 8"):
        student_of(teacher, depth=19)
    with pytest.raises(DomainError, match="depth is 21, but the teacher allows 8, 20"):
        student_of(FAMILIES["resnet A"](seed=0), depth=21)
    with pytest.raises(DomainError, match="depth is 4, but the teacher allows 1, 2, 3"):
        student_of(FAMILIES["conv4"](seed=0), depth=4)
    learner = dataclasses.replace(
        teacher, adaptation=Adaptation(method="gradient", tensors={"features.0.weight": torch.zeros(1)})
    )
    with pytest.raises(DomainError, match="tensors of its own"):
        student_of(learner)
    with pytest.raises(SpecError, match="width"):
        Student(width=1.5)
