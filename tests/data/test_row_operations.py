"""Operations on rows of tables: what they keep, what they draw, and where they are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mapsto.context import Context
from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._columns import RowColumns
from mapsto.data.augment.feature_dropout import FeatureDropout
from mapsto.data.augment.mixup import Mixup
from mapsto.data.augment.noise import Noise
from mapsto.data.augment.smote import Smote
from mapsto.data.augment.swap import Swap
from mapsto.data.sets.arrays import Arrays
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.table import Table
from mapsto.data.sets.task_augmented import TaskAugmented
from mapsto.data.sets.umtra import Umtra
from mapsto.errors import DomainError, SpecError
from mapsto.mappings.meta.protonet import Protonet
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.train.augmenter import Augmenter


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixed_rows(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (count, 5): metres, millimetres and a word of three; three classes that the numbers tell apart."""
    labels = torch.arange(count) % 3
    numbers = labels + 0.3 * torch.rand(count, generator=seeded(9))
    word = torch.nn.functional.one_hot((labels + torch.arange(count) // 3 % 2) % 3, 3)
    return torch.cat([numbers[:, None], 1000 * numbers[:, None], word.float()], 1), labels


def drawn(operation: Augmentation, seed: int = 0) -> tuple[Drawn, torch.Tensor]:
    rows, labels = mixed_rows()
    batch = Drawn(x=rows, targets=labels, classes=3, columns=RowColumns.of(rows.numpy()))
    return batch, operation.draw(batch, seeded(seed)).x


def is_whole(words: torch.Tensor) -> bool:
    return bool(((words == 0) | (words == 1)).all() and (words.sum(1) == 1).all())


@pytest.mark.parametrize(
    "operation", [Swap(probability=0.5), FeatureDropout(probability=0.5), Smote(probability=1), Noise(std=0.5)]
)
def test_categories_stay_whole(operation: Augmentation) -> None:
    batch, x = drawn(operation)
    assert not torch.equal(x, batch.x)
    assert is_whole(x[:, 2:])


def test_swapping_keeps_each_column_of_each_class() -> None:
    """An exchange permutes values within column and class; half of all pairs are exchanged, one-hot columns as a whole."""
    batch, x = drawn(Swap(probability=0.5))
    for label in range(3):
        before, after = batch.x[batch.targets == label], x[batch.targets == label]
        assert torch.equal(before.sort(0).values, after.sort(0).values)
    changed = (x != batch.x)[:, :2].float().mean()
    assert 0.3 < float(changed) < 0.7
    assert not torch.equal(x[:, 0] * 1000, x[:, 1])


def test_a_row_without_another_of_its_class_is_not_swapped() -> None:
    rows = torch.arange(6.0).view(3, 2)
    batch = Drawn(x=rows, targets=torch.tensor([0, 1, 2]), classes=3)
    assert torch.equal(Swap(probability=1).draw(batch, seeded()).x, rows)
    assert torch.equal(Smote(probability=1).draw(batch, seeded()).x, rows)


def test_dropped_values_are_other_rows_or_the_mean() -> None:
    batch, x = drawn(FeatureDropout(probability=0.3))
    assert all(bool(torch.isin(x[:, place], batch.x[:, place]).all()) for place in range(5))
    assert 0.15 < float((x != batch.x)[:, 0].float().mean()) < 0.45
    columns = dataclasses.replace(RowColumns.of(batch.x.numpy()), mean=np.arange(5, dtype=np.float32) - 10)
    result = FeatureDropout(probability=1, fill="mean").draw(dataclasses.replace(batch, columns=columns), seeded()).x
    assert result.tolist() == [[-10.0, -9.0, -8.0, -7.0, -6.0]] * 60, "of the training rows, not of the batch"


def test_smote_lands_between_near_rows_of_a_class() -> None:
    """Two clusters of one class far apart: no row leaves its cluster while it has enough neighbours there."""
    centre = torch.tensor([0.0, 100.0]).repeat_interleave(20)
    rows = centre[:, None] + torch.rand(40, 2, generator=seeded(3))
    batch = Drawn(x=rows, targets=torch.zeros(40, dtype=torch.int64), classes=1)
    moved = Smote(neighbours=5, probability=1).draw(batch, seeded()).x
    assert float((moved - centre[:, None] - 0.5).abs().max()) <= 0.5
    far = Smote(neighbours=39, probability=1).draw(batch, seeded()).x
    assert bool(((far > 2) & (far < 99)).any())
    half = Smote(probability=0.5).draw(batch, seeded()).x
    assert 8 < int((half != rows).any(1).sum()) < 32


def test_noise_is_a_share_of_the_spread_of_each_column() -> None:
    batch, _ = drawn(Noise())
    many = dataclasses.replace(batch, x=batch.x.repeat(50, 1))
    difference = Noise(std=0.3).draw(many, seeded()).x - many.x
    share = difference.std(0)[:2] / batch.x.std(0)[:2]
    assert share.tolist() == pytest.approx([0.3, 0.3], abs=0.02)
    assert float(difference[:, 2:].abs().max()) == 0


def test_columns_are_those_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "pets.csv"
    lines = [f"{k % 7},{['cat', 'dog', 'eel'][k % 3]},{k % 2},{'ab'[k % 2]}" for k in range(30)]
    file.write_text("\n".join(["size,kind,tame,label", *lines]) + "\n", encoding="utf-8")
    samples = Table(file=str(file), target="label").open()
    columns = RowColumns.of(samples.inputs, samples.preprocessing.columns)
    assert columns.column.tolist() == [0, 1, 1, 1, 2]
    assert columns.categorical.tolist() == [False, True, True, True, False]
    assert columns.count == 3


def toy(path: Path, *, values: bool = False) -> Any:
    rows, labels = mixed_rows()
    np.savez(path / "rows.npz", inputs=rows.numpy(), labels=labels.numpy() + 0.5 if values else labels.numpy())
    return Arrays(file=str(path / "rows.npz"))


def test_training_gives_the_classes(tmp_path: Path) -> None:
    """Within a class of equal rows nothing can change: so it is seen that partners are of the class."""
    samples = toy(tmp_path).open()
    equal = dataclasses.replace(samples, inputs=np.repeat(samples.labels[:, None], 4, 1).astype(np.float32))
    operations = (Swap(probability=1), Smote(probability=1))
    ctx = Context(key="a step")
    result = Augmenter(operations, ctx, equal)(equal.inputs, equal.labels, 0, equal.preprocessing)
    assert torch.equal(result.x, torch.as_tensor(equal.inputs))
    own = Augmenter(operations, ctx, samples)(samples.inputs, samples.labels, 0, samples.preprocessing)
    assert not torch.equal(own.x, torch.as_tensor(samples.inputs))
    with pytest.raises(
        DomainError, match="swap takes values from other samples of the same class, but there are no classes"
    ):
        Augmenter(operations, ctx, samples).changed(samples.inputs, 0)


def test_that_mixup_blends_categories_is_said(tmp_path: Path) -> None:
    ctx = Context()
    Augmenter((Mixup(),), ctx, toy(tmp_path).open())
    assert ["blends categories" in note for note in ctx.notes] == [True]
    Augmenter((Mixup(),), other := Context(), Digits(size=8).open())
    assert other.notes == []


def test_what_needs_classes_is_refused_where_there_are_none(tmp_path: Path) -> None:
    data = toy(tmp_path, values=True)
    with pytest.raises(DomainError, match=r"swap takes values .* but the targets are numbers to predict"):
        Supervised(data=data, augment=(Swap(),), epochs=1)(Mlp(inputs=5, classes=1)(seed=0))
    for made in (
        lambda: Protonet(tasks=TaskAugmented(data=Digits()), augment=(Smote(),)),
        lambda: TaskAugmented(data=Digits(), augment=(Swap(),)),
        lambda: Umtra(data=Digits(), augment=(Swap(),)),
    ):
        with pytest.raises(SpecError, match="takes values from other samples, but"):
            made()
    with pytest.raises(DomainError, match="swap is for rows, but the samples are images"):
        Supervised(data=Digits(size=8), augment=(Swap(),), epochs=1)(Mlp(inputs=64)(seed=0))


def test_a_table_trains_with_all_of_them(tmp_path: Path) -> None:
    data = toy(tmp_path)
    operations = (Swap(), Smote(), FeatureDropout(), Noise(), Mixup())
    mapping = Supervised(data=data, augment=operations, epochs=2, batch_size=20)
    network = Mlp(data=data, widths=(8,), classes="data")(seed=0)
    first, again = (mapping(network, seed=1).tensors for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
