"""`adapt.best`: which head it takes, and what it says of it."""

from __future__ import annotations

from typing import Any

import pytest

from mapsto import adapt, datasets, evaluate, networks
from mapsto.context import SilentContext
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network, Table

DIGITS = datasets.digits(size=16)
FEW = datasets.subset(data=DIGITS, per_class=4)
REST = datasets.subset(data=DIGITS, per_class=4, part="rest")


@pytest.fixture(scope="module")
def network() -> Network:
    return networks.conv4(data=DIGITS, width=8)(seed=0)


def applied(value: Network, **fields: Any) -> tuple[Network, SilentContext]:
    ctx = SilentContext(seed=0)
    return ctx.apply(adapt.best(**{"data": FEW, **fields}), value), ctx


def ways_of(ctx: SilentContext) -> list[dict[str, Any]]:
    table = ctx.attached["ways"]
    assert isinstance(table, Table)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_the_table_holds_every_way_and_the_head_is_that_of_the_one_that_was_taken(network: Network) -> None:
    found, ctx = applied(network)
    ways = ways_of(ctx)
    assert [way["way"] for way in ways] == ["ridge", "centroid", "logistic", "nearest"]
    (taken,) = [way for way in ways if way["taken"]]
    assert any(note.startswith(f"{taken['way']}: right on {taken['accuracy']:.1f} %") for note in ctx.notes)
    assert all(10 < way["accuracy"] <= 100 for way in ways)
    right = evaluate.accuracy(data=REST)(found).metrics["accuracy"].value
    assert abs(right - taken["accuracy"]) < 20, "held-out examples say about how good it is"


@pytest.mark.parametrize("way", ["ridge", "centroid", "logistic", "nearest"])
def test_each_way_alone(way: str, network: Network) -> None:
    found, ctx = applied(network, ways=(way,))
    assert [row["way"] for row in ways_of(ctx)] == [way]
    assert evaluate.accuracy(data=REST)(found).metrics["accuracy"].value > 20, (
        "by chance 10, and the network is untrained"
    )


def test_a_pool_adds_its_ways_and_its_labels_are_not_read(network: Network) -> None:
    pool = datasets.subset(data=REST, per_class=20)
    shifted = datasets.subset(
        data=datasets.subset(data=REST, per_class=20), classes=("9", "8", "7", "6", "5", "4", "3", "2", "1", "0")
    )
    found, ctx = applied(network, unlabelled=pool)
    assert [way["way"] for way in ways_of(ctx)][:2] == ["propagation, ridge", "pt_map, ridge"]
    again, _ = applied(network, unlabelled=shifted)
    assert {*found.tensors} == {*again.tensors}
    assert all((found.tensors[name] == again.tensors[name]).all() for name in found.tensors)


def test_one_example_of_each_class_leaves_nothing_to_judge_by(network: Network) -> None:
    _, ctx = applied(network, data=datasets.subset(data=DIGITS, per_class=1))
    assert {way["accuracy"] for way in ways_of(ctx)} == {""}
    assert any("with one example a class none can be held out" in note for note in ctx.notes)


def test_augmentation_and_class_weights_go_to_the_way_that_is_taken(network: Network) -> None:
    plain, _ = applied(network, ways=("ridge",))
    changed, _ = applied(network, ways=("ridge",), augment=[{"noise": {"std": 0.1}}])
    weighed, _ = applied(network, ways=("ridge",), class_weights="balanced")
    heads = [next(t for name, t in each.tensors.items() if name.startswith("classifier")) for each in (plain, changed)]
    assert not (heads[0] == heads[1]).all()
    assert weighed.signature.classes == plain.signature.classes


def test_what_cannot_be_chosen_from_is_refused(network: Network) -> None:
    with pytest.raises(DomainError, match="no way is left"):
        applied(network, ways=("propagation",))
    with pytest.raises(SpecError, match="mixes samples"):
        adapt.best(data=FEW, augment=["mixup"])
    with pytest.raises(DataError, match="only one class has samples"):
        applied(network, data=datasets.subset(data=DIGITS, classes=("3",), per_class=4))
