"""Which head and which network are picked, and by which figures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.mappings.small import Corners, context, network

from mapsto.kinds import Samples
from mapsto.nn.adapt.choice_of_head import WAYS, Judged, Prepared, Way, _picked, choose
from mapsto.nn.adapt.choice_of_network import log_me, ranked
from mapsto.nn.adapt.examples import Examples, with_head
from mapsto.nn.adapt.features import features
from mapsto.nn.adapt.linear_head import LinearHead
from mapsto.nn.network.inference import forward

pytestmark = pytest.mark.usefixtures("trusted")

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 6)
ROWS = RNG.random((18, 10)) + 2 * np.eye(3, 10)[LABELS]


def always(answer: int, name: str, *, pool: bool = False) -> Way:
    """A way to a head that gives the same class to all."""

    def prepare(
        rows: NDArray[np.float64], labels: NDArray[np.int64], pool: NDArray[np.float64], classes: int
    ) -> Prepared:
        head = LinearHead(np.zeros((classes, rows.shape[1])), np.eye(classes)[answer])
        return lambda places: head

    return Way(name, prepare, pool=pool)


def test_the_first_way_is_taken_unless_another_is_clearly_better() -> None:
    rng = np.random.default_rng(0)
    bad = always(0, "bad")
    found = choose(ROWS, LABELS, 3, rng, ways=(bad, *WAYS))
    assert found.picked.name == "ridge"
    assert found.judged[0].accuracy == pytest.approx(1 / 3)
    assert "a difference of 66.7 ±" in found.why
    same = choose(ROWS, LABELS, 3, rng, ways=(bad, always(1, "as bad")))
    assert same.picked.name == "bad"
    assert same.why == "right on 33.3 % of held-out examples; no other is right more often"
    assert (found.head(18)(ROWS).argmax(1) == LABELS).all()


def test_with_one_example_a_class_the_order_decides() -> None:
    found = choose(ROWS[::6], LABELS[::6], 3, np.random.default_rng(0))
    assert found.picked.name == WAYS[0].name
    assert np.isnan(found.judged[0].accuracy)
    assert "none can be held out" in found.why


def test_ways_that_need_a_pool_are_left_out_without_one() -> None:
    ways = (always(0, "pooled", pool=True), *WAYS)
    assert len(choose(ROWS, LABELS, 3, np.random.default_rng(0), ways=ways).judged) == len(WAYS)
    both = choose(ROWS, LABELS, 3, np.random.default_rng(0), ways=ways, pool=ROWS)
    assert both.judged[0].name == "pooled"
    assert both.picked.name == "ridge", "a pool that hurts is not used"


@pytest.mark.parametrize(
    ("usual", "error", "number"), [(0.10, 0.09, 1), (0.10, 0.11, 0), (-0.10, 0.01, 0), (0.0, 0.0, 0)]
)
def test_a_pool_is_left_aside_where_the_first_way_without_is_better_by_a_standard_error(usual, error, number) -> None:
    def way(name: str, gain: float, gain_error: float) -> Judged:
        figures = {"accuracy_error": 0.1, "log_loss": 1.0, "log_loss_error": 0.1}
        return Judged(name=name, accuracy=0.4 + gain, against_usual=gain, against_usual_error=gain_error, **figures)

    judged = [way("pooled", 0.0, 0.0), way("plain", usual, error), way("other", 0.05, 0.04)]
    picked, why = _picked(judged, (True, False, False))
    assert picked == number
    assert ("left aside" in why) is (number == 1)
    assert _picked(judged, (False, False, False))[0] == 0, "a first way that needs no pool has more credit"
    if number:
        assert (
            why
            == "right on 50.0 % of held-out examples without the pool, pooled on 40.0 %, so that the pool is left aside"
        )


def test_classes_of_unequal_size_can_count_alike() -> None:
    few = np.r_[np.arange(6), 6, 7]
    weights = np.where(LABELS[few] == 0, 1 / 6, 1 / 2)
    rng = np.random.default_rng(0)
    (plain,) = choose(ROWS[few], LABELS[few], 2, rng, ways=(always(0, "first"),)).judged
    (alike,) = choose(ROWS[few], LABELS[few], 2, rng, ways=(always(0, "first"),), weights=weights).judged
    assert (plain.accuracy, alike.accuracy) == (pytest.approx(6 / 8), pytest.approx(1 / 2))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_head_becomes_a_network_of_the_same_scores(way: Way) -> None:
    value, samples = network(), Corners(per_class=5).open()
    rows = features(value, samples.inputs, context())
    head = way.prepare(rows, samples.labels, rows[:0], 4)(np.arange(20))
    made = with_head(value, Examples.of(samples, rows), head)
    scores = forward(made.module(), samples.inputs, value.signature.preprocessing).numpy()
    assert np.allclose(scores, head(rows), atol=1e-3 * np.abs(scores).max())


def test_log_me_is_the_largest_evidence_of_the_linear_model() -> None:
    rows = RNG.normal(size=(12, 3))
    labels = (rows[:, 0] + 0.3 * RNG.normal(size=12) > 0).astype(np.int64)
    best = []
    for label in (0, 1):
        target = (labels == label).astype(float)
        found = -np.inf
        for weights in 10 ** np.linspace(-2, 3, 101):
            for noise in 10 ** np.linspace(-1, 2, 61):
                cover = np.eye(12) / noise + rows @ rows.T / weights
                fit = target @ np.linalg.solve(cover, target)
                found = max(found, -0.5 * (fit + np.linalg.slogdet(cover)[1] + 12 * np.log(2 * np.pi)))
        best.append(found / 12)
    assert log_me(rows, labels, 2) == pytest.approx(float(np.mean(best)), abs=2e-3)


def test_networks_are_ranked_by_left_out_examples_and_one_that_cannot_take_them_is_last() -> None:
    samples = Corners(per_class=6).open()
    good = network()
    blind = dataclasses.replace(good, tensors={**good.tensors, "conv.weight": 0 * good.tensors["conv.weight"]})
    color = Samples(
        inputs=np.zeros((24, 2, 8, 8), np.uint8),
        labels=samples.labels,
        classes=samples.classes,
        preprocessing=samples.preprocessing,
    )
    found = ranked({"blind": blind, "good": good}, samples, context())
    assert [each.name for each in found] == ["good", "blind"]
    assert found[0].log_loss < 0.5 < found[1].log_loss
    assert "right on left-out examples" in found[0].why
    (refused,) = ranked({"good": good}, color, context())
    assert refused.log_me == -np.inf
    assert refused.why.startswith("it cannot take these examples: expected images")
    alone = samples.take(np.arange(0, 24, 6))
    assert [each.name for each in ranked({"blind": blind, "good": good}, alone, context())] == ["good", "blind"]
