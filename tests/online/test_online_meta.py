"""Learners that learn how to learn while the stream goes on: their rates, concepts that begin and return, and what they begin with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mapsto import datasets, export, meta, networks, online, streams
from mapsto.context import Context
from mapsto.kinds import Block, Network
from mapsto.testing.streams import model_digest

DIGITS = datasets.subset(data=datasets.digits(size=8), per_class=16)
TASKS = datasets.episodes(data=DIGITS, ways=3, shots=1, queries=3)
STREAM = streams.replay(data=DIGITS, order="by_class")


@pytest.fixture(scope="module")
def learner() -> Network:
    network = networks.conv4(data=DIGITS, width=8, blocks=2)(seed=0)
    return meta.metasgd(tasks=TASKS, steps=3, engine="loop")(network)


def of_concepts(*parts: tuple[str, str]) -> Block:
    """Sixteen images for each concept, whose two classes are named as it says."""
    images = next(STREAM.open(size=160))
    count = 16 * len(parts)
    names = [label for _, labels in parts for label in [*labels] * 8]
    places = np.array([int(label) * 16 + row for label, row in zip(names, range(count), strict=True)]) % 160
    return dataclasses.replace(
        images.take(0, count) if count <= 160 else images,
        x={
            "image": images.x["image"][places],
            "place": np.array([concept for concept, _ in parts for _ in range(16)], object),
        },
        y=np.array(names, object),
    )


def test_learned_rates_and_rows_of_a_meta_trained_head_are_where_it_begins(learner: Network) -> None:
    model = online.la_maml(stream=streams.replay(data=DIGITS), batch=10**6)(learner)
    assert learner.adaptation is not None
    own = learner.adaptation.tensors["features.0.0.weight"].numpy()
    np.testing.assert_array_equal(model.arrays["rates.features.0.0.weight"], own)
    head = learner.tensors["classifier.weight"].numpy()
    np.testing.assert_array_equal(model.arrays["weights.head.weight"][:5], head[[0, 1, 2, 0, 1]])
    given = online.la_maml(stream=streams.replay(data=DIGITS), batch=10**6, inner_rate=0.5)(learner)
    assert {float(given.arrays["rates.features.0.0.weight"].min()), float(given.arrays["rates.head.bias"].max())} == {
        0.5
    }


@pytest.mark.parametrize("second_order", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rates_are_learned_and_come_first(second_order: bool, learner: Network) -> None:
    def after(rate_of_rates: float) -> Any:
        made = online.la_maml(stream=STREAM, second_order=second_order, rate_of_rates=rate_of_rates)
        return made(learner).arrays["rates.features.0.0.weight"]

    assert learner.adaptation is not None
    own = learner.adaptation.tensors["features.0.0.weight"].numpy()
    np.testing.assert_array_equal(after(0.0), own)
    assert np.abs(after(0.1) - own).max() > 1e-4


@pytest.mark.slow
def test_concepts_that_a_column_tells_begin_and_return(learner: Network) -> None:
    block = of_concepts(("a", "01"), ("b", "23"), ("a", "01"))
    live = online.follow_the_meta_leader(stream=STREAM, concept="place", batch=8).open(learner, None, Context())
    live.advance(block)
    account = live.account()
    assert [each["what"] for each in account["marks"]] == ["a begins", "b begins", "a returns"]
    assert [(row[0], row[3]) for row in account["tables"][0]["rows"]] == [("b", 16), ("a", 32)]
    assert account["aside"] == {}
    again = online.follow_the_meta_leader(stream=STREAM, concept="place", batch=8)
    digests = set()
    for size in (1, 48):
        own = again.open(learner, None, Context())
        for start in range(0, 48, size):
            own.advance(block.take(start, start + size))
        digests.add(model_digest(own.result()))
    assert digests == {model_digest(live.result())}


def test_a_new_class_after_a_quiet_time_begins_a_concept(learner: Network) -> None:
    block = of_concepts(("", "01"), ("", "01"), ("", "23"))
    plain = dataclasses.replace(block, x={"image": block.x["image"]})
    live = online.follow_the_meta_leader(stream=STREAM, quiet=20, batch=8, steps=1).open(learner, None, Context())
    live.advance(plain)
    begun = [(each["event"], each["what"]) for each in live.account()["marks"]]
    assert begun == [(1, "concept 1 begins"), (33, "concept 2 begins")]


def test_the_oldest_concept_makes_room_and_memory_is_bounded(learner: Network) -> None:
    block = of_concepts(*((name, "01") for name in "abcd"))
    made = online.follow_the_meta_leader(stream=STREAM, concept="place", concepts=2, memory=0.001, batch=8, steps=1)
    live = made.open(learner, None, Context())
    live.advance(block)
    rows = live.account()["tables"][0]["rows"]
    assert [row[0] for row in rows] == ["c", "d"]
    assert sum(len(array) for name, array in live.result().arrays.items() if name.endswith("memory_samples")) <= 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["la_maml", "follow_the_meta_leader"])
def test_what_it_has_become_leaves_as_a_package(name: str, learner: Network) -> None:
    model = getattr(online, name)(stream=STREAM)(learner)
    assert export.onnx(data=DIGITS, samples=20)(model).manifest()["parity"]["top1_agreement"] == 1.0
    assert export.mapsto(data=DIGITS, samples=20)(model).manifest()["parity"]["max_abs_difference"] < 1e-5
