"""`online.tabular` one event at a time, on the short way and on the long one: the same bits, whatever the events hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.online.test_learning import block
from tests.online.test_softmax import EVENTS, Taught, teach

from mapsto.kinds import Block
from mapsto.nn.online.tabular import TabularLearner


def learner(task: Any = "classes") -> TabularLearner:
    return TabularLearner(
        {},
        task=task,
        forests=False,
        labels=True,
        most_categories=3,
        most_late=2,
        late_bytes=2.0**20,
        late_seconds=None,
        seed=0,
    )


class _LongWay(TabularLearner):
    def _learn_one(self, block: Block, answered: Any) -> None:
        return None


@settings(max_examples=15, deadline=None)
@given(events=EVENTS)
def test_the_short_way_gives_the_bits_of_the_long_one(events: list[Any]) -> None:
    long = learner()
    long.__class__ = _LongWay
    one, other, whole = (Taught(live) for live in (learner(), long, learner()))
    for taught, size in ((one, 1), (other, 1), (whole, 1000)):
        teach(taught, events, [size])
    assert one.state() == other.state() == whole.state()
    assert one.said() == other.said() == whole.said()


def _ways(events: list[Block], task: Any = "classes") -> tuple[list[int], TabularLearner]:
    """Which of the events went the short way, and the learner, which is as after the long way."""
    live, long = learner(task), learner(task)
    long.__class__ = _LongWay
    short: list[int] = []
    for number, event in enumerate(events):
        one = live._learn_one(event, None)
        short += [] if one is None else [number]
        scores = live._learn(event, None) if one is None else one
        assert scores.tobytes() == long.learn(event).tobytes()
    for name, array in live.arrays().items():
        assert array.tobytes() == long.arrays()[name].tobytes(), name
    assert live.aside == long.aside
    return short, live


def test_what_is_known_goes_the_short_way_and_what_is_odd_the_long_one() -> None:
    first = [block({"a": [1.0], "b": ["red"]}, [label]) for label in "yn"]
    known = [block({"a": [2.0], "b": ["red"]}, ["y"]), block({"b": [""], "a": [np.nan]}, ["n"])]
    asked = [block({"a": [2.0], "b": ["red"]}, [None]), block({"a": [2.0], "b": ["red"]}, [None], ["q"])]
    odd = [
        block({"a": [np.inf], "b": ["red"]}, ["y"]),
        block({"a": [-2e100], "b": ["red"]}, ["y"]),
        block({"a": [1.0], "b": ["blue"]}, ["y"]),
        block({"a": [1.0], "b": ["red"]}, ["nan"]),
        block({"a": ["word"], "b": ["red"]}, ["y"]),
        block({"a": [1.0], "b": [3.0]}, ["y"]),
        block({"a": [1.0], "b": ["red"], "c": [1.0]}, ["y"]),
        block({"a": [None], "b": [None]}, ["y"], ["q"]),
        block({"a": [1.0]}, ["y"]),
    ]
    vector = dataclasses.replace(odd[-1], x={"a": np.ones((1, 1)), "b": np.array(["red"], object)})
    short, live = _ways([*first, *known, *asked, *odd[:-2], vector, *odd[-2:]])
    assert short == [2, 3, 4]
    assert sum(live.aside.values()) == 5


def test_where_vectors_are_learnt_a_number_in_their_place_is_set_aside() -> None:
    vectors = [dataclasses.replace(block({"v": [1.0]}, ["y"]), x={"v": np.full((1, 1), value)}) for value in (1.0, 2.0)]
    short, live = _ways([*vectors, block({"v": [1.0]}, ["y"])])
    assert short == []
    assert sum(live.aside.values()) == 1


@pytest.mark.parametrize("odd", [np.nan, np.inf, 2e100])
def test_values_are_learnt_the_short_way(odd: float) -> None:
    def of(x: float, y: float) -> Block:
        return dataclasses.replace(block({"a": [x]}, ["y"]), y=np.array([y]))

    short, live = _ways([of(float(n), 2.0 * n) for n in range(20)] + [of(1.0, odd)], "values")
    assert short == [*range(1, 20)]
    assert sum(live.aside.values()) == 1
