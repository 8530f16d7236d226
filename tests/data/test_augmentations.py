"""What every augmentation promises, how recipes name them, what their keys are made of, and where they are refused."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.command import mapsto as command
from torch.nn.functional import avg_pool2d, interpolate

import mapsto
from mapsto import augment, discovery
from mapsto.context import Context, Numerics
from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._words import text_words
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.sets.subset import Subset
from mapsto.data.sets.task_augmented import TaskAugmented
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Dataset, Network, Preprocessing, Samples, canonical
from mapsto.mappings.adapt.finetune import Finetune
from mapsto.mappings.distill.decoupled import Decoupled
from mapsto.mappings.distill.logits import Logits
from mapsto.mappings.distill.self import Self
from mapsto.mappings.meta.protonet import Protonet
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.distill.teacher_student import Teacher
from mapsto.nn.train.augmenter import Augmenter
from mapsto.nn.train.language.contract_encoder import contract_encoder
from mapsto.nn.train.language.masked_language_head import with_head
from mapsto.nn.train.language.objectives import MaskedLanguage
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump, node_of
from mapsto.store.digest import step_key
from mapsto.testing import lock
from mapsto_runtime.preprocessing.texts import encoded

DATA = Digits(size=16)
NAMES = sorted(name.removeprefix("augment.") for name in discovery.entries("augment"))
PER_PIXEL = {"noise"}
"""What neither moves nor mixes pixels, and so may draw for each."""
NEIGHBOURS = {"blur", "sharpness"}
"""What weighs pixels of the image as it is read with those beside them, however large they are."""
BY_LEVEL = {"augmix", "equalize", "posterize"}
"""What jumps at a level, on one side of which a pixel and its parts may not all be."""


def class_of(name: str) -> type[Augmentation]:
    return discovery.find("augment", f"augment.{name}")


def example(name: str) -> Augmentation:
    cls = class_of(name)
    return cls(**(cls.contract | ({"network": language_model()} if name == "masked_words" else {})))


@cache
def language_model() -> Network:
    """A masked language model with fresh weights."""
    network = contract_encoder()
    ids = encoded(["the quick brown fox"], network.signature.preprocessing, "text").ids
    return with_head(network, MaskedLanguage(network.module(), ids))  # type: ignore[arg-type]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(size: int, count: int = 24) -> torch.Tensor:
    """Bytes of images without sharp edges, the same at every size."""
    coarse = torch.rand(count, 3, 4, 4, generator=seeded(1)) * 255
    return interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False).round().to(torch.uint8)


def batch_for(operation: Augmentation, size: int = 32) -> Drawn:
    """Raw images for what changes single ones, prepared ones for what mixes; rows or texts for what takes no images."""
    if operation.on == ("texts",):
        return texts()
    x = smooth(size) if "images" in operation.on else torch.rand(24, 9, generator=seeded(1))
    return Drawn(
        x=x.float() / 64 - 2 if operation.mixes else x,
        targets=torch.arange(len(x)) % 5,
        weights=torch.linspace(0.5, 1.5, len(x)),
        classes=5,
    )


def texts() -> Drawn:
    """Sentences as token ids, with their tokenizer."""
    encoder = contract_encoder().signature.preprocessing
    sentences = ["the quick brown fox jumps over a lazy dog", "where is my card", "words and words and more words"] * 8
    wide = dataclasses.replace(encoder, length=48)
    ids = encoded(sentences, wide, "texts").ids
    return Drawn(x=torch.as_tensor(ids), targets=torch.arange(24) % 5, classes=5, words=text_words(wide))


# --------------------------------------------------------------------------------------------------------- promises


def test_these_there_are() -> None:
    assert NAMES == [
        "affine",
        "augmix",
        "autocontrast",
        "blur",
        "brightness",
        "color",
        "color_jitter",
        "contrast",
        "crop",
        "cutmix",
        "cutout",
        "elastic",
        "equalize",
        "erasing",
        "feature_dropout",
        "flip",
        "grid_mask",
        "invert",
        "masked_words",
        "mixup",
        "noise",
        "posterize",
        "randaugment",
        "rotate",
        "sharpness",
        "shear_x",
        "shear_y",
        "smote",
        "solarize",
        "swap",
        "translate_x",
        "translate_y",
        "trivialaugment",
        "typing_errors",
        "word_dropout",
        "word_swap",
    ]
    assert dir(augment) == NAMES
    assert mapsto.augment.flip is class_of("flip")
    with pytest.raises(AttributeError, match=r"unknown augmentation 'augment\.flop'.*flip"):
        _ = augment.flop  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_construct_and_all_is_explained(name: str) -> None:
    cls: Any = class_of(name)
    assert cls().name == name
    assert discovery.name_of(cls) == f"augment.{name}"
    assert re.search(r"\(.*\b(19|20)\d\d\b", sys.modules[cls.__module__].__doc__ or "", re.DOTALL), "names its source"
    assert ">>> " in cls.__doc__
    assert all(info.description for info in cls.__pydantic_fields__.values())
    assert cls.version >= 1
    assert set(cls.on) <= {"images", "rows", "texts"}
    with pytest.raises(SpecError, match=f"field '{next(iter(cls.__pydantic_fields__))}'"):
        cls(**{next(iter(cls.__pydantic_fields__)): -1})


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_holds_it(name: str) -> None:
    cls = class_of(name)
    chain = Conv4(channels=1, size=16) >> Supervised(data=DATA, augment=(cls(**cls.contract), cls()))
    assert parse_recipe(dump(chain)).steps == chain
    assert [list(node) for node in node_of(chain)[1]["train.supervised"]["augment"]] == [[name], [name]]
    named = parse_recipe(recipe(f"[{name}, {{{name}: {{}}}}, {name}: ]"))
    assert named.steps.steps[1].augment == (class_of(name)(),) * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_alone_decides_and_the_input_stays(name: str) -> None:
    operation = example(name)
    batch = batch_for(operation)
    before, state = batch.x.clone(), torch.get_rng_state()
    first, again, other = (operation.draw(batch, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.x, other.x)
    assert torch.equal(batch.x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.x.shape, first.x.dtype, first.classes) == (batch.x.shape, batch.x.dtype, 5)


@pytest.mark.parametrize("name", NAMES)
def test_targets_change_only_where_samples_are_mixed(name: str) -> None:
    operation = example(name)
    batch = batch_for(operation)
    result = operation.draw(batch, seeded())
    if not operation.mixes:
        assert result.targets is batch.targets
        assert result.weights is batch.weights
        return
    assert result.weights is not None
    assert result.targets.shape == (len(batch.x), 5)
    assert torch.allclose(result.targets.sum(1), torch.ones(len(batch.x)))
    assert 0.5 <= float(result.weights.min()) <= float(result.weights.max()) <= 1.5
    assert bool((result.targets.gather(1, batch.targets[:, None]) > 0).any())


@pytest.mark.parametrize("name", NAMES)
def test_images_of_another_size_see_the_same_change(name: str) -> None:
    operation: Any = example(name)
    if name in PER_PIXEL | NEIGHBOURS or "images" not in operation.on:
        return
    doubled = operation
    if name == "erasing":
        operation = doubled = dataclasses.replace(operation, fill="mean")
    if name == "crop":
        doubled = dataclasses.replace(operation, padding=2 * operation.padding)
    generators = seeded(2), seeded(2)
    small, large = batch_for(operation, 32), batch_for(operation, 64)
    changed, larger = operation.draw(small, generators[0]), doubled.draw(large, generators[1])
    assert torch.equal(*(each.get_state() for each in generators)), "as many draws"
    difference = (avg_pool2d(larger.x.float(), 2) - changed.x.float()).abs().mean()
    assert float(difference) < (0.6 if name in BY_LEVEL else 0.2) * float(
        (changed.x.float() - small.x.float()).abs().mean()
    )
    if operation.mixes:
        assert torch.allclose(changed.targets, larger.targets, atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_it_takes_it_takes(name: str) -> None:
    operation = example(name)
    for x in (torch.rand(6, 1, 8, 12), torch.rand(6, 1, 8, 12, dtype=torch.float64), torch.rand(6, 9)):
        if ("images" if x.ndim == 4 else "rows") in operation.on:
            result = operation.draw(Drawn(x=x, targets=torch.arange(6), classes=6), seeded()).x
            assert (result.shape, result.dtype) == (x.shape, x.dtype)


# ------------------------------------------------------------------------------------------------ in training


def raw_images(size: int, per_class: int = 4) -> Samples:
    images = smooth(size, 4 * per_class).numpy()
    return Samples(
        inputs=images,
        labels=np.arange(len(images)) % 4,
        classes=tuple("abcd"),
        preprocessing=Preprocessing(channels=3, size=(size, size), mean=(0.5,) * 3, std=(0.25,) * 3),
    )


def context() -> Context:
    return Context(key="a step", numerics=Numerics(threads=1))


def test_each_place_item_and_rank_has_draws_of_its_own() -> None:
    flips = (augment.flip(), augment.flip())
    samples = raw_images(8, per_class=10)

    def masks(item: int, rank: int = 0) -> list[bytes]:
        augmenter = Augmenter(flips, context())
        augmenter._rank = rank
        draws = (torch.rand(40, generator=augmenter._generator(item, place)) for place in (0, 1))
        return [each.numpy().tobytes() for each in draws]

    assert len({*masks(0), *masks(1), *masks(0, rank=1)}) == 6
    assert masks(3) == masks(3)
    one, other = (Augmenter(flips, context()).changed(samples.inputs, item) for item in (0, 1))
    assert torch.equal(one, Augmenter(flips, context()).changed(samples.inputs, 0))
    assert not torch.equal(one, other)


def test_single_samples_change_before_they_are_prepared_and_mix_after() -> None:
    """Noise is cut off at black and white whatever the normalisation; what is mixed is what the network is given."""
    white = np.full((8, 1, 4, 4), 255, np.uint8)
    ends = Preprocessing(channels=1, size=(4, 4), mean=(0.5,), std=(0.25,))
    noisy = Augmenter((augment.noise(std=0.5),), context())(white, np.arange(8), 0, ends)
    assert float(noisy.x.max()) == 2
    assert noisy.targets.dtype == torch.int64
    samples = raw_images(8)
    plain = Augmenter((), context(), classes=4)(samples.inputs, samples.labels, 0, samples.preprocessing)
    mixed = Augmenter((augment.mixup(),), context(), classes=4)(
        samples.inputs, samples.labels, 0, samples.preprocessing
    )
    wanted = augment.mixup().draw(plain, Augmenter((), context())._generator(0, 0))
    assert torch.equal(mixed.x, wanted.x)
    assert torch.equal(mixed.targets, wanted.targets)


def test_teacher_and_student_of_other_sizes_see_the_same_images() -> None:
    student, teacher = (Conv4(channels=3, size=size, width=4, classes=4)(seed=0) for size in (32, 64))
    samples = raw_images(64, per_class=10)
    operations = (augment.flip(), augment.affine(degrees=20, translate=0.1), augment.crop(padding=4))
    for mixer in (augment.mixup(alpha=1), augment.cutmix()):
        augmenter = Augmenter((*operations, mixer), context(), classes=4)
        asked = Teacher(teacher, student, augmenter, context(), where="test")
        own, theirs = asked.inputs(samples.inputs, samples.labels, 5)
        plain = Augmenter((), context())(samples.inputs, samples.labels, 5, student.signature.preprocessing).x
        assert (own.x.shape[2:], theirs.shape[2:]) == ((32, 32), (64, 64))
        difference = (avg_pool2d(theirs, 2) - own.x).abs().mean()
        assert float(difference) < 0.05 * float((own.x - plain).abs().mean())


MIXED = (augment.flip(), augment.mixup(alpha=1), augment.cutmix())
FEW: Any = Subset(data=DATA, per_class=4)
TEACHER = Conv4(data=FEW, width=4, blocks=2, classes="data")
HOW: Any = {"data": FEW, "epochs": 1, "batch_size": 20, "class_weights": "balanced"}


@pytest.mark.parametrize(
    "mapping",
    [
        Supervised(**HOW, smoothing=0.1),
        Finetune(**HOW, folds=None),  # else what was held out may find the beginning best
        Logits(**HOW, teacher=TEACHER, features=1),
        Self(**HOW),
    ],
    ids=lambda mapping: mapping.name,
)
def test_mixed_samples_train(mapping: Any) -> None:
    value: Network = TEACHER(seed=1)
    mixing = dataclasses.replace(mapping, augment=MIXED)
    weights = [each(value, seed=2).tensors["classifier.weight"] for each in (mixing, mixing, mapping)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], value.tensors["classifier.weight"])


# -------------------------------------------------------------------------------------------------- recipes


def recipe(listed: str) -> str:
    return (
        "schema: 1\nsteps:\n  - networks.conv4: {channels: 1, size: 16}\n"
        f"  - train.supervised:\n      data: {{digits: {{size: 16}}}}\n      augment: {listed}\n"
    )


def test_settings_go_by_name() -> None:
    listed = "[flip, crop: {padding: 4}]"
    path = "train.supervised.augment"
    steps = parse_recipe(recipe(listed), settings={f"{path}.crop.padding": 2, f"{path}.flip.probability": 0.25}).steps
    assert steps.steps[1].augment == (augment.flip(probability=0.25), augment.crop(padding=2))  # type: ignore[attr-defined]
    steps = parse_recipe(recipe(listed), settings={f"{path}.crop": {"padding": 3}, path: ["noise"]}).steps
    assert steps.steps[1].augment == (augment.noise(),)  # type: ignore[attr-defined]
    quick = recipe(listed) + f"quick: {{{path}.crop.padding: 1}}\n"
    assert parse_recipe(quick, quick=True).steps.steps[1].augment[1] == augment.crop(padding=1)  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="'augment' has no entry 'noise', but flip, crop; give the whole list"):
        parse_recipe(recipe(listed), settings={f"{path}.noise.std": 0.1})
    with pytest.raises(
        SpecError, match=r"unknown field 'paddin'.*padding.*, by --set train.supervised.augment.crop.paddin"
    ):
        parse_recipe(recipe(listed), settings={f"{path}.crop.paddin": 1})


@pytest.mark.parametrize(
    ("listed", "place", "message"),
    [
        ("[flip, crp: {padding: 4}]", "6:23", "unknown augmentation 'crp'.*crop"),
        ("[flip, crop: {paddin: 4}]", "6:30", "unknown field 'paddin'.*padding"),
        ("[flip, crop: {padding: -4}]", "6:30", "field 'padding'.*greater than or equal to 0, got -4"),
        ("[crop: 4]", "6:17", "fields of 'crop' are not a mapping"),
        ("[{flip: {}, crop: {}}]", "6:17", "one name with its fields"),
        ("[mixup, flip]", "6:24", "flip stands after mixup, .* write it before"),
        ("auto", "6:7", "a list of augmentations, as in"),
        ("{flip: {}, crop: {padding: 4}}", "6:7", "a list of augmentations, as in"),
    ],
)
def test_errors_name_what_is_near_and_where_it_stands(listed: str, place: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"{place}: .*{message}"):
        parse_recipe(recipe(listed))


def test_all_errors_of_a_list_come_at_once() -> None:
    with pytest.raises(SpecError, match=r"2 errors\n.*6:18: .*flop.*\n.*6:31: .*paddin"):
        parse_recipe(recipe("[ flop, crop: {paddin: 4}]"))


def test_the_former_fields_are_read_with_a_note() -> None:
    text = recipe("{flip: true, crop_padding: 4, degrees: 10, noise: 0.2, shear: 0}") + (
        "quick: {train.supervised.augment.crop_padding: 1}\n"
    )
    settings = {"train.supervised.augment.degrees": 5}
    found = parse_recipe(text, settings=settings, quick=True)
    wanted = augment.affine(degrees=5), augment.crop(padding=1), augment.flip(), augment.noise(std=0.05)
    assert found.steps.steps[1].augment == wanted  # type: ignore[attr-defined]
    former, noise = found.notes
    assert "augment: [affine: {degrees: 10}, crop: {padding: 4}, flip: {}, noise: {std: 0.05}]" in former
    assert "divided by 4" in noise
    assert parse_recipe(dump(found)).notes == ()
    assert parse_recipe(recipe("{flip: false}")).steps.steps[1].augment == ()  # type: ignore[attr-defined]
    assert parse_recipe(recipe("[flip]")).notes == ()


def test_a_run_tells_of_former_fields(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(recipe("{flip: true}"))
    result = command("run", file, "--plan", "--store", tmp_path / "store", code=0)
    assert "`augment: {flip: true}` is written `augment: [flip: {}]` now" in result.out + result.err


def test_the_command_line_knows_them() -> None:
    listing = command("list", "augmentations", code=0).out
    assert all(f"augment.{name}" in listing for name in NAMES)
    shown = command("show", "mixup", code=0).out
    schema = json.loads(command("show", "meta.umtra", "--json", code=0).out)["schema"]["properties"]
    names, fields = schema["copies"]["items"]["anyOf"]
    assert names["enum"] == [*fields["properties"]] == NAMES
    assert fields["properties"]["crop"]["anyOf"][0]["properties"]["padding"]["maximum"] == 64
    assert "default [{'affine': {'degrees': 20" in command("show", "meta.umtra", code=0).out
    assert "augment.mixup: for images and rows, mixes samples and their targets" in shown
    assert "alpha  (number in (0, 100], default 0.2)" in shown
    assert (
        "augment  (augmentations: [name, name: {fields}], default ())"
        in command("show", "train.supervised", code=0).out
    )


# ----------------------------------------------------------------------------------------------------- keys


def key(mapping: Any) -> str:
    unknown: Any = None
    return step_key(
        mapping,
        (),
        seed=0,
        numerics=Numerics(threads=1),
        kernels=True,
        resolve=unknown,
        source=lambda _: "network",
    )


def test_class_fields_and_version_of_an_operation_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> list[str]:
        lists = [
            (),
            (augment.mixup(alpha=0.5),),
            (augment.cutmix(alpha=0.5),),
            (augment.mixup(),),
            (augment.flip(),),
            (augment.flip(), augment.mixup()),
        ]
        images = lists[0], lists[4], (augment.erasing(),), (augment.crop(),), (augment.crop(), augment.flip())
        found = [key(Supervised(data=DATA, augment=each)) for each in lists]
        return found + [TaskAugmented(data=DATA, augment=each).fingerprint() for each in images]

    before = keys()
    assert len(set(before)) == len(before)
    monkeypatch.setattr(class_of("flip"), "version", 2)
    after = keys()
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert same == [True, True, True, True, False, False, True, False, True, True, False]


JITTER = '''
"""Make images brighter or darker, each by its own factor."""

import dataclasses

import torch

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._words import text_words


class Jitter(Augmentation):
    """Images with another brightness."""

    strength: float = 0.2
    """Largest change of brightness, as a share."""

    def draw(self, drawn: Drawn, generator: torch.Generator) -> Drawn:
        factor = 1 + self.strength * (2 * torch.rand(len(drawn.x), 1, 1, 1, generator=generator) - 1)
        return dataclasses.replace(drawn, x=(drawn.x * factor).round().clamp(0, 255).to(drawn.x.dtype))
'''


@pytest.fixture(name="jitter")
def _jitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An augmentation of another package, which is installed."""
    file = tmp_path / "their_jitter.py"
    file.write_text(JITTER)
    point = EntryPoint(name="jitter", value="their_jitter:Jitter", group="mapsto.augment")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(discovery, "entry_points", lambda group: [point] if group == point.group else [])
    kept = discovery.entries, discovery.find
    for cached in kept:
        cached.cache_clear()
    yield file
    sys.modules.pop("their_jitter", None)
    for cached in kept:
        cached.cache_clear()


def test_one_of_another_package_works_as_ours_do(jitter: Path) -> None:
    steps = parse_recipe(recipe("[flip, jitter: {strength: 0.5}]")).steps
    flip, theirs = steps.steps[1].augment  # type: ignore[attr-defined]
    assert (flip, theirs.name, theirs.strength) == (class_of("flip")(), "jitter", 0.5)
    assert parse_recipe(dump(steps)).steps == steps
    plain, brighter = (
        Supervised(data=FEW, epochs=1, batch_size=20, augment=listed)(TEACHER(seed=1), seed=0)
        for listed in ((), (theirs,))
    )
    assert not torch.equal(plain.tensors["classifier.weight"], brighter.tensors["classifier.weight"])
    before = key(Supervised(data=DATA, augment=(theirs,)))
    jitter.write_text(JITTER.replace("0.2", "0.3"))
    canonical.source_digest.cache_clear()
    assert key(Supervised(data=DATA, augment=(theirs,))) != before, "another source is another thing"


def test_a_new_file_adds_its_own_entry_to_the_lock_and_changes_no_other(
    jitter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at are those that hold augmentations; hashing them all takes seconds."""
    known = {group: dict(discovery.entries(group)) for group in discovery.FOLDERS}
    some = ("train.supervised", "distill.logits", "meta.umtra", "umtra", "task_augmented")
    for group in ("mappings", "data", "streams"):
        known[group] = {name: entry for name, entry in known[group].items() if name in some}
    monkeypatch.setattr(discovery, "entries", known.__getitem__)
    monkeypatch.setattr(lock, "_WALKED", {})
    of_another_package = lock.entries()
    known["augment"]["augment.jitter"] = known["augment"]["augment.jitter"]._replace(path=jitter)
    with_file = lock.entries()
    assert "augment.jitter" not in of_another_package["augment"]
    assert with_file["augment"].pop("augment.jitter")["version"] == 1
    assert with_file == of_another_package
    assert with_file["augment"]["augment.crop"]["defaults"] == {"padding": "4"}


# ------------------------------------------------------------------------------------------------- refusals


class Rows(Dataset):
    """Rows of numbers, token ids, or rows whose targets are numbers."""

    kind: str = "rows"
    """Or ``ids``, ``regression``, ``images`` (with numbers as targets)."""

    def fingerprint(self) -> str:
        return repr(self)

    def open(self) -> Samples:
        random = np.random.default_rng(0)
        inputs: Any = random.normal(size=(24, 6)).astype(np.float32)
        labels: Any = np.arange(24) % 3
        if self.kind == "ids":
            inputs = random.integers(0, 9, (24, 6))
        if self.kind in ("regression", "images"):
            labels = inputs[:, :1].copy()
        preprocessing = Preprocessing(kind="none")
        if self.kind == "images":
            inputs = random.integers(0, 255, (24, 1, 8, 8)).astype(np.uint8)
            preprocessing = Preprocessing(channels=1, size=(8, 8))
        names = tuple("abc") if self.kind in ("rows", "ids") else ("value",)
        return Samples(inputs=inputs, labels=labels, classes=names, preprocessing=preprocessing)


TASKS = EpisodesOf(data=DATA, ways=3, shots=1, queries=2)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Protonet(tasks=TASKS, augment=MIXED), "the labels of a task"),
        (lambda: Logits(tasks=TASKS, teacher=TEACHER, augment=MIXED), "the labels of a task"),
        (lambda: Decoupled(data=DATA, teacher=TEACHER, augment=MIXED), "this loss sets the one right class"),
        (lambda: mapsto.distill.contrastive(data=DATA, teacher=TEACHER, augment=MIXED), "its memory"),
        (lambda: mapsto.meta.umtra(tasks=TASKS, copies=MIXED), "each copy is of one image"),
        (lambda: TaskAugmented(data=DATA, augment=MIXED), "each image is of one class"),
    ],
    ids=["tasks", "distillation over tasks", "decoupled", "contrastive", "umtra", "augmented tasks"],
)
def test_mixing_is_refused_where_targets_are_not_the_batchs_own(make: Any, why: str) -> None:
    with pytest.raises(SpecError, match=f"mixup mixes samples, but {why}.*; cutmix mixes"):
        make()


def test_the_refusal_says_where_it_stands() -> None:
    text = (
        "schema: 1\nsteps:\n  - networks.conv4: {channels: 1, size: 16}\n"
        "  - meta.protonet:\n      tasks: {episodes: {data: {digits: {}}}}\n"
    )
    with pytest.raises(SpecError, match=r"6:23: mixup mixes samples, but the labels of a task"):
        parse_recipe(text + "      augment: [flip, mixup]\n")


@pytest.mark.parametrize(
    ("kind", "listed", "why"),
    [
        ("rows", (augment.flip(),), r"flip is for images, but the samples are rows: float32 of shape \(6,\)"),
        ("ids", (augment.mixup(),), "mixup is for images and rows, but the samples are texts"),
        ("images", (augment.cutmix(),), "cutmix mixes labels, but the targets are numbers.*mixup"),
    ],
)
def test_samples_that_an_operation_is_not_for_are_refused(kind: str, listed: Any, why: str) -> None:
    data = Rows(kind=kind)
    network: Any = (
        Conv4(channels=1, size=8, width=4, blocks=2, classes=1) if kind == "images" else Mlp(data=data, widths=(4,))
    )
    with pytest.raises(DomainError, match=why):
        Supervised(data=data, epochs=1, batch_size=8, augment=listed)(network(seed=0))


def test_rows_and_numbers_are_blended() -> None:
    for data in (Rows(), Rows(kind="regression")):
        network: Network = Mlp(data=data, widths=(4,))(seed=0)
        both = (augment.noise(std=0.1), augment.mixup())
        plain, blended = (
            Supervised(data=data, epochs=1, batch_size=8, augment=listed)(network, seed=0) for listed in ((), both)
        )
        assert any(not torch.equal(plain.tensors[name], blended.tensors[name]) for name in plain.tensors)
