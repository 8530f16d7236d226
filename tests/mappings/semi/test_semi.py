"""Learning from a few labels and a pool: what comes out, what is said, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import PREPROCESSING, Corners, context, network

from mapsto import datasets, networks, semi
from mapsto.context import Context
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Dataset, Samples
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.evaluate.clusters import Clusters

pytestmark = pytest.mark.usefixtures("trusted")

ONE, FEW, POOL, TEST = Corners(per_class=1), Corners(per_class=4), Corners(seed=2, per_class=40), Corners(seed=1)
ON_FEATURES = ["propagation", "pt_map", "structured"]
TRAINED = ["pseudo_label", "mean_teacher", "fixmatch", "flexmatch", "freematch"]


class Changed(Dataset):
    """A pool that something is the matter with."""

    pool: Any = POOL
    what: str = "plain"

    def fingerprint(self) -> str:
        return repr(self)

    def open(self) -> Samples:
        samples = self.pool.open()
        inputs: Any = samples.inputs
        labels: Any = np.zeros((len(samples), 0), np.float32)  # a pool has none
        if self.what == "copies":
            inputs = np.concatenate([inputs, FEW.open().inputs])
        elif self.what == "only copies":
            inputs = FEW.open().inputs
        elif self.what == "empty":
            inputs = inputs[:0]
        elif self.what == "size":
            inputs = np.repeat(inputs, 2, axis=3)
        elif self.what == "nan":
            inputs = np.full(inputs.shape, np.nan, np.float32)
        elif self.what == "tiny":
            inputs = inputs[:2]
        labels = np.zeros((len(inputs), 0), np.float32)
        return Samples(inputs=inputs, labels=labels, classes=(), preprocessing=PREPROCESSING)


def accuracy(value: Any) -> float:
    return context().apply(Accuracy(data=TEST), value).metrics["accuracy"].value


def made(name: str, data: Dataset = FEW, pool: Dataset | None = None, **fields: Any) -> Any:
    if name in TRAINED:
        fields = {"steps": 40, "batch_size": 16, "ratio": 2.0, "weak": ["noise"], "ema": 0.9, **fields}
    return getattr(semi, name)(data=data, unlabelled=pool or Changed(), **fields)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_a_head_from_one_label_a_class_and_a_pool(name: str) -> None:
    ctx = context()
    result = ctx.apply(made(name, ONE), network())
    assert accuracy(result) > 90
    assert result.signature.classes == ONE.open().classes
    assert result.adaptation is None
    assert any("one labelled example a class" in note for note in ctx.notes)


@pytest.mark.parametrize("name", TRAINED)
def test_a_network_trained_with_a_pool_and_what_passed_is_said(name: str) -> None:
    ctx = context()
    result = ctx.apply(made(name, back_off="never"), network(classes=4))
    assert accuracy(result) > 90
    assert any("passed the threshold in the last pass" in note for note in ctx.notes)
    assert not any("held out in turn" in note for note in ctx.notes)


@pytest.mark.parametrize("helps", [True, False])
def test_folds_decide_whether_a_training_uses_the_pool(helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from mapsto.mappings.semi.fixmatch import FixMatch

    seen: list[int] = []

    def briefly(self: Any, value: Any, samples: Samples, pool: Any, asked: Any, ctx: Context) -> Any:
        seen.append(len(samples))
        right = helps == bool(len(pool))
        truth = {sample.tobytes(): label for sample, label in zip(FEW.open().inputs, FEW.open().labels, strict=True)}
        return np.eye(4)[[(truth[each.tobytes()] + (not right)) % 4 for each in asked]]

    monkeypatch.setattr(FixMatch, "_briefly", briefly)
    ctx = context()
    mapping = made("fixmatch", steps=3)
    live = mapping.open(network(classes=4), None, ctx)
    items = mapping.items(network(classes=4), ctx)
    rows = [metrics for step in range(3) for _, metrics in live.advance(items[step])]
    assert seen == [8, 8, 8, 8]  # two folds, with and without
    assert any("100.0 % " in note and "0.0 % " in note for note in ctx.notes)
    assert all(("pool_loss" in row) == helps for row in rows)
    again = mapping.open(network(classes=4), live.snapshot(), context())
    assert again.snapshot()["chosen"] == {"pool helps": helps}


@pytest.mark.parametrize("name", ["propagation", "fixmatch"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", "not one sample"),
        ("size", r"shape \(1, 8, 16\), uint8; the labelled ones are of shape"),
        ("nan", "shape|nan"),
    ],
)
def test_pools_that_are_refused(name: str, what: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        context().apply(made(name, pool=Changed(what=what)), network(classes=4))


@pytest.mark.parametrize("name", ["propagation", "fixmatch"])
def test_one_class_alone_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="no samples"):
        context().apply(made(name, Corners(labels="one")), network(classes=4))


def test_labelled_samples_in_the_pool_are_left_out_and_counted() -> None:
    ctx = context()
    mapping = made("propagation", pool=Changed(what="copies"), open_set="keep", back_off="never")
    result = ctx.apply(mapping, network())
    assert any(note.startswith("16 samples of the pool are among the labelled examples too") for note in ctx.notes)
    same = context().apply(dataclasses.replace(mapping, unlabelled=Changed()), network())
    assert torch.equal(result.tensors["classifier.weight"], same.tensors["classifier.weight"])


@pytest.mark.parametrize("what", ["only copies", "tiny"])
@pytest.mark.parametrize("name", ["propagation", "pt_map", "fixmatch"])
def test_a_pool_that_is_too_small_is_warned_of_and_labels_alone_are_learnt_from(name: str, what: str) -> None:
    ctx = context()
    result = ctx.apply(made(name, pool=Changed(what=what), open_set="keep", back_off="never"), network(classes=4))
    assert accuracy(result) > 70
    assert any("fewer than there are classes (4)" in text for text in ctx.warnings)


def test_what_mixes_samples_is_refused() -> None:
    with pytest.raises(SpecError, match="mixup mixes samples"):
        context().apply(made("fixmatch", strong=["mixup"]), network(classes=4))


def test_classes_of_a_pool_are_discovered_and_judged() -> None:
    ctx = context()
    found = ctx.apply(semi.discover(unlabelled=Changed(), most=8), network())
    assert found.signature.classes == tuple(f"group {number}" for number in range(1, 5))
    assert any(note.startswith("there seem to be 4 groups") for note in ctx.notes)
    report = context().apply(Clusters(data=TEST), found)
    assert report.metrics["accuracy"].value > 90
    assert report.metrics["nmi"].value > 0.8
    assert {row[2] for row in report.tables["groups"].rows} == set(TEST.open().classes)
    with pytest.raises(DataError, match="2 samples cannot make 4 groups"):
        context().apply(semi.discover(unlabelled=Changed(what="tiny"), groups=4), network())


@pytest.mark.parametrize("name", ["propagation", "pseudo_label"])
def test_rows_of_a_table_and_more_rows_without_the_target(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def rows(count: int, labelled: bool) -> str:
        lines = ["length,colour,kind"[: None if labelled else -5]]
        for number in range(count):
            kind = number % 2
            cells = [f"{4 * kind + rng.normal():.3f}", ("red", "blue")[kind if rng.random() < 0.9 else 1 - kind]]
            lines.append(",".join([*cells, *([("no", "yes")[kind]] if labelled else [])]))
        return "\n".join(lines) + "\n"

    for file, text in (("few", rows(12, True)), ("pool", rows(200, False)), ("test", rows(200, True))):
        (tmp_path / f"{file}.csv").write_text(text, encoding="utf-8")
    few = datasets.table(file=str(tmp_path / "few.csv"), target="kind")
    pool = datasets.table(file=str(tmp_path / "pool.csv"), target="kind", unlabelled="only")
    ctx = context()
    value = ctx.apply(networks.mlp(data=few, widths=(16,)), None)
    fields: Any = (
        {} if name == "propagation" else {"steps": 30, "batch_size": 12, "back_off": "never", "weak": ["noise"]}
    )
    result = ctx.apply(getattr(semi, name)(data=few, unlabelled=pool, **fields), value)
    test = datasets.table(file=str(tmp_path / "test.csv"), target="kind")
    assert ctx.apply(Accuracy(data=test), result).metrics["accuracy"].value > 85
    (tmp_path / "pool.csv").write_text("width\n1\n", encoding="utf-8")
    with pytest.raises((DataError, SpecError), match="length"):
        context().apply(getattr(semi, name)(data=few, unlabelled=pool, **fields), value)
