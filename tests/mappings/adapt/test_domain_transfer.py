"""From a labelled source to a target without labels: what each way does, what it refuses, and which is picked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mapsto import adapt, datasets, evaluate
from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Dataset, Network, Table, trusting
from mapsto.nn.network.inference import forward
from mapsto.nn.transfer.choice import chosen, held_out


class Straight(nn.Module):
    """Rows are their own embedding, after a norm or none."""

    def __init__(self, norm: str = "none") -> None:
        super().__init__()
        self.layer = {"none": nn.Identity(), "batch": nn.BatchNorm1d(6)}[norm]
        self.classifier = nn.Linear(6, 3)

    def embed(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


@pytest.fixture(autouse=True)
def trusted() -> Iterator[None]:
    with trusting("tests"):
        yield


def straight(norm: str = "none") -> Network:
    return Network.from_module(Straight(norm), torch.zeros(2, 6), arguments={"norm": norm})


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """Three groups of rows; in the target each column is stretched and moved."""

    def store(name: str, count: int, *, target: bool, classes: tuple[str, ...] = ("a", "b", "c")) -> Dataset:
        rng = np.random.default_rng(len(name))
        labels = np.arange(count) % 3
        inputs = rng.normal(size=(count, 6)) * 0.4
        inputs[np.arange(count), labels] += 2
        if target:
            inputs = inputs * [4.0, 0.5, 1.0, 2.0, 1.0, 1.0] + [9, -3, 0, 1, 0, 0]
        np.savez(tmp_path / f"{name}.npz", inputs=inputs.astype(np.float32), labels=np.array(classes)[labels])
        return datasets.arrays(file=str(tmp_path / f"{name}.npz"))

    return store


def accuracy(network: Network, data: Dataset) -> float:
    return evaluate.accuracy(data=data)(network).metrics["accuracy"].value


def test_coral_undoes_a_linear_change_of_the_domain(stored: Any) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    before = adapt.linear(data=source, strength=1.0)(straight())
    after = adapt.coral(source=source, target=target, strength=1.0)(straight())
    assert accuracy(before, target) < 70
    assert accuracy(after, target) > 95


def test_labels_of_other_classes_give_a_head_for_these(stored: Any) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    few = stored("few", 9, target=True, classes=("x", "y", "z"))
    whole = stored("other names", 90, target=True, classes=("x", "y", "z"))
    made = adapt.coral(source=source, target=target, labelled=few)(straight())
    trained = adapt.mmd(source=source, target=target, labelled=few, steps=2)(straight("batch"))
    assert made.signature.classes == trained.signature.classes == ("x", "y", "z")
    assert min(accuracy(made, whole), accuracy(trained, whole)) > 90


@pytest.mark.parametrize("way", ["deep_coral", "mmd", "dann"])
def test_training_draws_the_domains_together(stored: Any, way: str) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    mapping = getattr(adapt, way)(source=source, target=target, steps=60, batch_size=30, learning_rate=0.03)
    assert accuracy(mapping(straight("batch")), target) > 90


def test_a_target_of_other_rows_is_refused(stored: Any) -> None:
    source = stored("source", 90, target=False)
    with pytest.raises(DataError, match=r"adapt\.coral: target: samples of shape \(1, 8, 8\)"):
        adapt.coral(source=source, target=datasets.digits(size=8))(straight())


@pytest.mark.parametrize("way", ["coral", "mmd", "dann", "tent"])
def test_a_target_whose_samples_are_all_the_same_says_nothing(stored: Any, tmp_path: Path, way: str) -> None:
    np.savez(tmp_path / "same.npz", inputs=np.ones((9, 6), np.float32), labels=np.zeros(9, np.int64))
    same = datasets.arrays(file=str(tmp_path / "same.npz"))
    data = {"target": same} if way == "tent" else {"source": stored("source", 60, target=False), "target": same}
    network = adapt.linear(data=stored("source", 60, target=False))(straight("batch"))
    with pytest.raises(DataError, match=rf"adapt\.{way}: target: all 9 samples are the same"):
        getattr(adapt, way)(**data)(network)


def test_tent_fits_norms_to_the_target(stored: Any) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    known = adapt.linear(data=source, strength=1.0)(straight("batch"))
    adapted = adapt.tent(target=target, batch_size=30)(known)
    assert accuracy(adapted, target) > max(accuracy(known, target), 90)
    changed = {name for name, tensor in adapted.tensors.items() if not torch.equal(tensor, known.tensors[name])}
    assert changed - {"layer.num_batches_tracked"} == {
        "layer.weight", "layer.bias", "layer.running_mean", "layer.running_var",
    }  # fmt: skip


def test_tent_refuses_a_network_without_norms(stored: Any) -> None:
    source = stored("source", 90, target=False)
    known = adapt.linear(data=source, strength=1.0)(straight())
    with pytest.raises(DomainError, match="Straight has no norm layer"):
        adapt.tent(target=source)(known)


def test_tent_says_that_answers_collapse_and_falls_back(stored: Any) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    unsure = adapt.linear(data=source, strength=1e-4)(straight("batch"))
    ctx = Context(seed=0)
    adapted = ctx.apply(adapt.tent(target=target, batch_size=9, epochs=20, learning_rate=0.5), unsure)
    assert any("the answers collapse" in text for text in ctx.warnings)
    assert torch.equal(adapted.tensors["layer.weight"], unsure.tensors["layer.weight"])
    assert accuracy(adapted, target) > 90


@pytest.mark.parametrize("labels", [0, 9])
def test_the_way_that_is_picked_is_good_on_the_target(stored: Any, labels: int) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    few = stored("few", labels, target=True) if labels else None
    ctx = Context(seed=0)
    ways = ("coral", "tent", "few", "source")
    made = ctx.apply(adapt.transfer(source=source, target=target, labelled=few, ways=ways, strength=1.0), straight())
    assert accuracy(made, target) > 95
    table = ctx.attached["ways"]
    assert isinstance(table, Table)
    assert {row[0] for row in table.rows} == ({"source", "few", "coral"} if labels else {"source", "coral"})
    assert any("tent is left out: Straight has no norm layer" in text for text in ctx.notes)


def test_the_first_is_taken_unless_another_is_clearly_better() -> None:
    answers = dict.fromkeys(("first", "other"), np.array([0, 1, 0, 1]))
    assert chosen({"first": np.ones(20), "other": np.zeros(20)}, answers, 2)[0] == "first"
    luck = {"first": np.array([1.0] * 14 + [0.0] * 6), "other": np.array([0.0] + [1.0] * 17 + [0.0] * 2)}
    assert chosen(luck, answers, 2)[0] == "first"
    clear = {"first": np.array([1.0] * 5 + [0.0] * 15), "other": np.ones(20)}
    assert chosen(clear, answers, 2)[0] == "other"


def test_without_labels_a_way_that_stands_alone_is_not_taken() -> None:
    answers = {name: np.arange(20) % 4 for name in ("first", "second", "third")}
    assert chosen({}, answers, 4)[0] == "first"
    assert chosen({}, answers | {"first": np.arange(20)[::-1] % 4}, 4)[0] == "second"


def test_a_collapsed_way_is_not_taken() -> None:
    answers = {"collapsed": np.zeros(9, np.int64), "another": np.zeros(9, np.int64), "whole": np.arange(9) % 3}
    assert chosen({}, answers, 3)[0] == "whole"


def test_labels_of_some_of_the_classes_in_another_order_are_the_source_s(stored: Any) -> None:
    source, target = stored("source", 90, target=False), stored("target rows", 90, target=True)
    few = datasets.subset(data=stored("few", 9, target=True), classes=("c", "a"))
    ctx = Context(seed=0)
    made = ctx.apply(
        adapt.transfer(source=source, target=target, labelled=few, ways=("few", "coral"), strength=1.0), straight()
    )
    assert made.signature.classes == ("a", "b", "c")
    answers = forward(made.module(), target.open().inputs, made.signature.preprocessing).argmax(1).numpy()
    known = target.open().labels != 1
    assert (answers == target.open().labels)[known].mean() > 0.9


def test_no_sample_judges_a_head_that_has_learnt_from_it() -> None:
    learnt: list[set[int]] = []

    def fit(places: np.ndarray[Any, Any]) -> Any:
        learnt.append(set(places.tolist()))
        return lambda rows: np.eye(2)[[int(place in learnt[-1]) for place in rows[:, 0]]]

    rows = np.arange(20.0)[:, None]
    found = held_out(fit, rows, np.zeros(20, np.int64), np.random.default_rng(0), lone=True)
    assert found.tolist() == [1.0] * 20
