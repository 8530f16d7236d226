"""`augment: auto`: what is chosen, that noise is not, what is said of it, and where it can be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapsto import augment, discovery
from mapsto.context import Context, SilentContext
from mapsto.data.augment import AUTO, Augmentation, Auto, Drawn
from mapsto.data.augment._auto import candidates
from mapsto.data.sets.arrays import Arrays
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.subset import Subset
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network, Preprocessing, Samples
from mapsto.mappings.adapt.centroid import Centroid
from mapsto.mappings.adapt.finetune import Finetune
from mapsto.mappings.adapt.linear import Linear
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.networks.conv4 import Conv4
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.adapt import augment_policy, ridge
from mapsto.nn.adapt.augment_policy import Judge, as_yaml, chosen, copies_of, operations_for
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump, node_of

CLASSES, EACH, WIDTH = 4, 10, 48


def clusters(seed: int, each: int = EACH, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Classes whose means differ in the first 8 features; in the others they are spread widely, which says nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(CLASSES * each) % CLASSES
    means = np.random.default_rng(99).normal(size=(CLASSES, 8))
    rows = np.concatenate(
        [means[labels] + 0.8 * rng.normal(size=(len(labels), 8)), noise * rng.normal(size=(len(labels), WIDTH - 8))], 1
    )
    return rows, labels


HELPS, NOTHING, HARMS, DESTROYS = augment.flip(), augment.crop(padding=1), augment.noise(), augment.erasing()


def copier(rows: np.ndarray) -> Any:
    """Copies as a good operation makes them (what says nothing is drawn anew), one that changes nothing, and two that harm."""
    rng = np.random.default_rng(5)

    def made(operations: tuple[Augmentation, ...]) -> np.ndarray:
        copies = np.repeat(rows[None], 4, 0)
        for each in operations:
            if each is HELPS:
                copies[:, :, 8:] = rng.normal(size=copies[:, :, 8:].shape)
            if each is HARMS:
                copies = copies + rng.normal(size=copies.shape)
            if each is DESTROYS:
                copies = np.roll(copies, 1, axis=1)  # classes take turns
        return copies[None]

    return made


def judge(seed: int) -> tuple[Judge, Any]:
    rows, labels = clusters(seed)
    return Judge.of(rows, labels, CLASSES, np.random.default_rng(seed)), copier(rows)


def test_what_helps_is_chosen_and_what_destroys_the_label_is_told() -> None:
    examples, copies = judge(0)
    choice = chosen(examples, [(HARMS,), (HELPS,), (NOTHING,), (DESTROYS,)], copies)
    assert choice.operations == (HELPS,)
    found = {each.operations: each for each in choice.tried}
    assert found[(HELPS,)].gain > 2 * found[(HELPS,)].error > 0
    assert found[(HARMS,)].gain < 0
    assert [each.operations for each in choice.tried if each.destroys] == [(DESTROYS,)]
    assert choice.tried[0].loss == min(each.loss for each in choice.tried)


def test_nothing_is_chosen_where_nothing_helps() -> None:
    """Copies alike their examples change nothing in the fit: their weight and the penalty's cancel."""
    for seed in range(3):
        examples, copies = judge(seed)
        choice = chosen(examples, [(NOTHING,), (HARMS,)], copies)
        assert choice.operations == ()
        same = next(each for each in choice.tried if each.operations == (NOTHING,))
        assert same.loss == pytest.approx(choice.none.loss, abs=1e-9)
        assert same.on_copies == pytest.approx(choice.none.accuracy)


def test_the_dual_form_is_the_ridge_regression() -> None:
    rows, labels = clusters(1)
    examples = Judge.of(rows, labels, CLASSES, np.random.default_rng(0))
    copies = copier(rows)((HELPS,))[0]
    gram = augment_policy._Gram(examples.features, augment_policy._seen(copies), labels, CLASSES)
    settings = augment_policy.Settings(0.3, 7.0)
    kept, held = np.arange(5, len(labels)), np.arange(5)
    own, numbers, weights = augment_policy.with_copies(
        examples.features[kept], labels[kept], augment_policy._seen(copies)[:, kept]
    )
    weight, bias = ridge.fit(own, numbers, CLASSES, penalty=0.3 * (1 + len(copies)), scale=7.0, weights=weights)
    assert gram.scores(kept, held, settings) == pytest.approx(examples.features[held] @ weight.T + bias, abs=1e-8)


# ---------------------------------------------------------------------------------------------------- a mapping's field


@pytest.fixture(autouse=True)
def in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting a network takes longer than embedding a few hundred rows."""
    monkeypatch.setattr("mapsto.nn.adapt.features.FROM", 10**9)


def toy(path: Path, count: int = 40, labels: Any = None) -> Arrays:
    rows = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    numbers = np.arange(count) % 2
    rows[:, 0] += 3 * numbers
    np.savez(path / "rows.npz", inputs=rows, labels=numbers if labels is None else labels)
    return Arrays(file=str(path / "rows.npz"))


def embedding(width: int = 6) -> Network:
    return Mlp(inputs=width, widths=())(seed=0)


def test_the_choice_is_noted_attached_and_deterministic(tmp_path: Path) -> None:
    samples = toy(tmp_path).open()
    found = []
    for _ in range(2):
        ctx = SilentContext(key="a")
        operations = operations_for(AUTO, embedding(), samples, ctx, where="adapt.test")
        (note,) = [text for text in ctx.notes if "augment: auto" in text]
        assert f"augment: auto chose `augment: {as_yaml(operations)}` by 40 examples" in note
        table = ctx.attached["augmentation_candidates"]
        found.append((operations, table))
        assert table.rows[0][0] == "[]"
        assert len(table.rows) == 1 + len(candidates("rows"))
    assert found[0] == found[1]
    assert operations_for((HARMS,), embedding(), samples, Context(), where="t") == (HARMS,)


def test_copies_take_values_from_their_own_fold_alone() -> None:
    """Rows that hold the number of their fold: what a copy holds tells where it was taken from."""
    folds = np.arange(40) % 5
    samples = Samples(
        inputs=np.repeat(folds[:, None], 6, 1).astype(np.float32) + 0.001 * np.arange(40)[:, None].astype(np.float32),
        labels=np.arange(40) // 5 % 2,
        classes=("a", "b"),
        preprocessing=Preprocessing(kind="none"),
    )
    for operation in (augment.swap(probability=1), augment.smote(probability=1)):
        made = copies_of(samples, (operation,), 3, lambda number: number, folds)
        assert made.shape == (3, 40, 6)
        assert not np.array_equal(made[0], samples.inputs)
        assert np.array_equal(np.floor(made + 1e-3).astype(int), np.broadcast_to(folds[:, None], made.shape))


def test_a_table_is_trained_with_what_was_chosen(tmp_path: Path) -> None:
    data = toy(tmp_path)
    ctx = SilentContext(key="k")
    ctx.apply(Finetune(data=data, augment="auto", epochs=2), embedding())
    assert any("augment: auto chose" in note for note in ctx.notes)
    assert "augmentation_candidates" in ctx.attached


def test_without_classes_or_with_one_example_of_each_it_says_so(tmp_path: Path) -> None:
    numbers = toy(tmp_path, labels=np.linspace(0, 1, 40)).open()
    with pytest.raises(DomainError, match="augment: auto chooses by classes, but the targets are no classes"):
        operations_for(AUTO, embedding(), numbers, Context(), where="adapt.test")
    pair = toy(tmp_path, 2).open()
    ctx = SilentContext()
    assert operations_for(AUTO, embedding(), pair, ctx, where="adapt.test") == ()
    assert "two examples of a class" in ctx.warnings[0]


def test_what_destroys_the_label_is_warned_of_by_name(tmp_path: Path) -> None:
    """Where the sign of one number is the class, noise of its own size is no harm, but an operation that turns it is."""
    rows, labels = clusters(0)
    choice = chosen(Judge.of(rows, labels, CLASSES, np.random.default_rng(0)), [(DESTROYS,)], copier(rows))
    ctx = SilentContext()
    augment_policy._tell(choice, len(labels), ctx)
    assert "erasing: changed so, what the label stands for is lost" in ctx.notes[-1]
    assert choice.operations == ()
    ctx = SilentContext()
    for operation, told in ((HELPS, 0), (DESTROYS, 1)):
        copies = copier(rows)((operation,))[0]
        augment_policy.warn_where_destroyed((operation,), rows, labels, CLASSES, copies, ctx)
        assert len(ctx.warnings) == told
    assert "augment: [erasing] destroys what the label stands for" in ctx.warnings[0]


# ---------------------------------------------------------------------------------------------------- recipes and keys

RECIPE = """schema: 1
data: {few: {digits: {size: 8}}}
steps:
  - networks.conv4: {channels: 1, size: 16}
  - adapt.finetune: {data: $few, augment: auto}
"""


def test_a_recipe_holds_it() -> None:
    recipe = parse_recipe(RECIPE)
    mapping: Any = recipe.steps.steps[1]
    assert isinstance(mapping.augment, Auto)
    assert mapping.augment == Finetune(data=mapping.data, augment="auto").augment
    assert parse_recipe(dump(recipe)).steps == recipe.steps
    assert node_of(mapping)["adapt.finetune"]["augment"] == "auto"
    assert "augment: auto" in dump(recipe)
    assert parse_recipe(RECIPE.replace("auto", "[flip]")).steps.steps[1].augment == (HELPS,)  # type: ignore[attr-defined]


def test_only_what_can_choose_takes_it() -> None:
    with pytest.raises(SpecError, match=r"field 'augment'.*this cannot choose them, as adapt\.finetune"):
        Supervised(data=Arrays(file="x.npz"), augment="auto")
    with pytest.raises(SpecError, match=r"should be a list of augmentations.*or auto"):
        Finetune(data=Arrays(file="x.npz"), augment="automatic")


def test_schema_says_auto_where_it_is_taken() -> None:
    import pydantic

    taking = pydantic.TypeAdapter(Finetune).json_schema()["properties"]["augment"]
    other = pydantic.TypeAdapter(Supervised).json_schema()["properties"]["augment"]
    assert "auto" in json.dumps(taking["anyOf"][0])
    assert "auto" not in json.dumps(other).replace("autocontrast", "")


def test_the_key_holds_what_there_is_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    before = AUTO.fingerprint()
    assert before == Auto().fingerprint()
    monkeypatch.setattr(discovery.find("augment", "augment.flip"), "candidates", ({}, {"probability": 1.0}))
    assert AUTO.fingerprint() != before


def test_every_candidate_constructs_and_draws() -> None:
    for kind, x in (("images", torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)), ("rows", torch.rand(6, 5))):
        for operation in candidates(kind):  # type: ignore[arg-type]
            batch = Drawn(x=x, targets=torch.arange(6) % 2, classes=2)
            assert operation.draw(batch, torch.Generator().manual_seed(0)).x.shape == x.shape


# ---------------------------------------------------------------------------------------------------- heads on a frozen encoder

FEW: Any = Subset(data=Digits(size=8), per_class=3)
HEADS: Any = (Ridge, Linear, Centroid)


def head_of(mapping: Any) -> torch.Tensor:
    return mapping(Conv4(channels=1, size=16, width=4, blocks=2)(seed=0), seed=1).tensors["classifier.weight"]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_fitted_to_copies_too(head: Any) -> None:
    """Copies that are alike change nothing; others do, and the same ones each time."""
    plain, same = head_of(head(data=FEW)), head_of(head(data=FEW, augment=[augment.noise(std=0)]))
    if head is not Linear:  # which scales features by their spread over all rows, shrunk the less the more rows
        assert torch.allclose(plain, same, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
    changed, again = (head_of(head(data=FEW, augment=[augment.crop(padding=2)])) for _ in range(2))
    assert torch.equal(changed, again)
    assert not torch.allclose(plain, changed, rtol=0.05, atol=0.01 * float(plain.abs().max()))


@pytest.mark.parametrize("head", HEADS)
def test_a_head_takes_no_mixed_samples(head: Any) -> None:
    with pytest.raises(SpecError, match="mixup mixes samples, but the head is fitted to embeddings of single samples"):
        head(data=FEW, augment=[augment.mixup()])
    assert isinstance(head(data=FEW, augment="auto").augment, Auto)


def test_a_head_chooses_and_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = [(augment.crop(padding=1),), (augment.flip(),)]
    monkeypatch.setattr(augment_policy, "lists_for", lambda *_: tried)
    ctx = SilentContext(key="k")
    ctx.apply(Ridge(data=FEW, augment="auto"), Conv4(channels=1, size=16, width=4, blocks=2)(seed=0))
    assert any("augment: auto chose" in note for note in ctx.notes)
    assert {row[0] for row in ctx.attached["augmentation_candidates"].rows} >= {"[]", "[crop: {padding: 1}]", "[flip]"}  # type: ignore[union-attr]


def test_augmenting_numbers_is_refused_by_heads(tmp_path: Path) -> None:
    data = toy(tmp_path, labels=np.linspace(0, 1, 40))
    with pytest.raises(DomainError, match="goes with one class a sample, and the targets are others"):
        Ridge(data=data, augment=(augment.noise(),))(embedding())
