"""Drift over any stream: which events come from where, when labels come, and that all of it can be opened anywhere."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import datasets, online, streams
from mapsto.errors import DataError, SpecError
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute
from mapsto.testing.streams import _events, check_stream


def rows(stream: Any, size: int = 256) -> list[tuple[str, bool, Any]]:
    """The id of each event, whether it has features, and its label."""
    return [
        (name, asks, label if has else None)
        for block in stream.open(size=size)
        for name, asks, label, has in zip(
            block.ids.tolist(), block.has_x.tolist(), block.y.tolist(), block.has_y.tolist(), strict=True
        )
    ]


def turns(stream: Any, count: int) -> list[int]:
    """Which stream each of the first events comes from."""
    ids = (name for name, _, _ in rows(stream))
    return [int(name.partition(":")[0]) for name in itertools.islice(ids, count)]


def sea(**fields: Any) -> Any:
    return streams.sea(**{"events": 1000, **fields})


# ------------------------------------------------------------------------------------------------------------------- drift


def test_streams_follow_each_other_at_once() -> None:
    stream = streams.drift(streams=(sea(), sea(seed=1), sea(seed=2)), at=(3, 5))
    assert [name for name, _, _ in rows(stream)][:7] == ["0:0", "0:1", "0:2", "1:0", "1:1", "2:0", "2:1"]
    assert len(rows(stream)) == 5 + 1000
    (block,) = itertools.islice(stream.open(size=4), 1)
    assert block.times.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert block.x["x1"].tolist()[3] == next(sea(seed=1).open()).x["x1"][0]


def test_streams_take_turns_and_go_on_where_they_stood() -> None:
    names = [name for name, _, _ in rows(streams.drift(streams=(sea(events=7), sea(events=9)), period=3))]
    assert names == ["0:0", "0:1", "0:2", "1:0", "1:1", "1:2", "0:3", "0:4", "0:5", "1:3", "1:4", "1:5", "0:6"]


def test_a_gradual_change_is_a_sigmoid() -> None:
    counts = np.zeros(400)
    for seed in range(40):
        counts += turns(streams.drift(streams=(sea(), sea(seed=1)), at=(200,), width=100, seed=seed), 400)
    shares = counts / 40
    expected = 1 / (1 + np.exp(-4 * (np.arange(400) - 200) / 100))
    assert np.abs(shares.reshape(20, 20).mean(axis=1) - expected.reshape(20, 20).mean(axis=1)).max() < 0.07
    assert shares[:50].mean() < 0.01
    assert shares[350:].mean() > 0.99


def test_columns_of_other_streams_are_missing() -> None:
    stream = streams.drift(streams=(sea(), streams.agrawal()), at=(2,))
    assert stream.columns() == {**sea().columns(), **streams.agrawal().columns()}
    block = next(stream.open(size=4))
    assert np.isnan(block.x["x1"]).tolist() == [False, False, True, True]
    assert [word == "" for word in block.x["car"]] == [True, True, False, False]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at or period"),
        ({"at": (3,), "period": 3}, "at or period"),
        ({"at": (3, 5)}, "2 events for 2 streams"),
        ({"at": (), "period": None}, "0 events for 2 streams"),
    ],
)
def test_a_drift_says_when(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        next(streams.drift(streams=(sea(), sea()), **fields).open())


def test_labels_are_of_one_kind_and_positions_of_the_same_streams() -> None:
    with pytest.raises(DataError, match="classes and others numbers"):
        _ = streams.drift(streams=(sea(), streams.friedman()), at=(3,)).task
    with pytest.raises(DataError, match="of other streams"):
        next(streams.drift(streams=(sea(), sea()), at=(3,)).open([5, [None]]))
    piped = streams.feature_drift(stream=streams.csv(file="-", target="y"))
    with pytest.raises(SpecError, match="cannot be read again"):
        streams.drift(streams=(sea(), piped), at=(3,)).columns()


# ------------------------------------------------------------------------------------------------------------- late labels


@pytest.mark.parametrize("delay", [1, 50, 2000])
def test_labels_come_after_so_many_questions_as_a_generator_has_them(delay: int) -> None:
    late = streams.late_labels(stream=sea(), events=delay)
    assert rows(late, 7) == rows(sea(label_delay=delay))


def test_labels_come_after_seconds_and_keep_their_ids(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("n,when,a,y\np,0,1,u\nq,10,2,\nr,,3,v\ns,12,4,w\nq,13,,x\nt,40,5,u\n")
    table = streams.csv(file=str(file), target="y", id="n", time="when")
    late = streams.late_labels(stream=table, seconds=5)
    found = [(name, "asks" if asks else label) for name, asks, label in rows(late, 1)]
    assert found == [
        ("p", "asks"),
        ("p", "u"),
        ("q", "asks"),
        ("r", "asks"),
        ("s", "asks"),
        ("r", "v"),
        ("s", "w"),
        ("q", "x"),
        ("t", "asks"),
        ("t", "u"),
    ]
    times = [float(block.times[0]) for block in late.open(size=1)]
    assert times[1] == 5.0
    assert times[5:8] == [15.0, 17.0, 18.0]
    check_stream(late)


def test_events_without_an_id_are_named_by_their_number(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("a,y\n1,u\n2,v\n")
    table = streams.csv(file=str(file), target="y")
    assert rows(streams.late_labels(stream=table, events=1)) == [
        ("#0", True, None),
        ("#0", False, "u"),
        ("#1", True, None),
        ("#1", False, "v"),
    ]
    with pytest.raises(DataError, match="have no times"):
        rows(streams.late_labels(stream=table, seconds=1))
    with pytest.raises(SpecError, match="events or seconds"):
        rows(streams.late_labels(stream=table))
    with pytest.raises(SpecError, match="cannot be read again"):
        rows(streams.late_labels(stream=streams.csv(file="-", target="y"), events=3))


def test_what_is_learnt_from_late_labels_is_that_of_a_generator_with_a_delay() -> None:
    late = online.softmax(stream=streams.late_labels(stream=sea(), events=50))(None)
    delayed = online.softmax(stream=sea(label_delay=50))(None)
    assert late.arrays["weights"].tobytes() == delayed.arrays["weights"].tobytes()


# --------------------------------------------------------------------------------------------------------- columns, classes


def test_columns_come_and_go_at_their_event_whatever_the_blocks() -> None:
    stream = streams.feature_drift(
        stream=streams.agrawal(events=300), appear={"car": 100}, vanish={"age": 130, "loan": 0}
    )
    for size in (1, 64, 300):
        car, age, loan = (
            np.concatenate([block.x[name] for block in stream.open(size=size)]) for name in ("car", "age", "loan")
        )
        assert (car != "").tolist() == [n >= 100 for n in range(300)]
        assert np.isfinite(age).tolist() == [n < 130 for n in range(300)]
        assert not np.isfinite(loan).any()
    model = online.softmax(stream=stream)(None)
    assert [column.name for column in model.signature.columns][-1] == "car", "it is met last"
    with pytest.raises(SpecError, match=r"no column 'agee'.*age"):
        streams.feature_drift(stream=streams.agrawal(), appear={"agee": 3}).columns()


def test_classes_become_frequent_and_rare() -> None:
    weights = ((1, 1, *[0] * 8), (0, 1, 3, *[0] * 7))
    fields: dict[str, Any] = {"data": datasets.digits(size=8), "weights": weights, "events": 4000, "concept": 2000}
    (block,) = streams.label_shift(**fields).open(size=4000)
    first, second = block.y[:2000].tolist(), block.y[2000:].tolist()
    assert abs(first.count("0") - 1000) < 120
    assert first.count("2") == second.count("0") == 0
    assert abs(second.count("2") - 1500) < 120
    (block,) = streams.label_shift(**fields, gradual=True, seed=1).open(size=4000)
    shares = [np.mean(part == "0") for part in np.split(block.y[:2000], 4)]
    assert shares == pytest.approx([0.4375, 0.3125, 0.1875, 0.0625], abs=0.05)
    for wrong in ((1, 1), tuple([0] * 10)):
        with pytest.raises(SpecError, match="for 10 classes"):
            streams.label_shift(data=datasets.digits(size=8), weights=(wrong,)).columns()


# ------------------------------------------------------------------------------------------------------------------- nested

NESTED = {
    "late drift": lambda: streams.late_labels(
        stream=streams.drift(streams=(sea(events=60), streams.agrawal(events=90)), period=20, width=10), events=9
    ),
    "drift of late": lambda: streams.drift(
        streams=(
            streams.late_labels(stream=sea(events=60), seconds=5.5),
            streams.feature_drift(stream=streams.agrawal(events=80, label_delay=3), appear={"age": 20}),
        ),
        at=(30,),
        width=20,
    ),
    "values": lambda: streams.drift(
        streams=(streams.friedman(events=60), streams.friedman(events=60, seed=3)), period=9
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_streams_of_streams_keep_the_promise_of_streams(name: str) -> None:
    stream = NESTED[name]()
    whole = list(_events(stream, None, 64))
    ends = {size: list(stream.open(size=size))[-1].next for size in (1, 7, 64)}
    assert ends[1] == ends[7] == ends[64], "positions do not depend on blocks"
    read = 0
    for block in stream.open(size=5):
        read += len(block)
        assert list(_events(stream, json.loads(json.dumps(block.next)), 64)) == whole[read:]


def test_a_recipe_names_the_streams_of_a_drift(tmp_path: Path) -> None:
    recipe = parse_recipe(
        """
schema: 1
data:
  before: {sea: {events: 200}}
  both:
    drift:
      streams: [$before, {sea: {events: 200, seed: 1, thresholds: [4]}}]
      at: [100]
      width: 40
steps:
  - online.softmax: {stream: {late_labels: {stream: $both, events: 10}}}
"""
    )
    one = execute(recipe, store=tmp_path / "store")
    assert one.result.load().events == 2 * (103 + 200)
    again = execute(recipe, store=tmp_path / "store")
    assert again.steps[0].status == "hit"
    other = streams.drift(streams=(sea(events=200), sea(events=200, seed=1)), at=(100,))
    assert other.fingerprint() != streams.drift(streams=(sea(events=200), sea(events=200)), at=(100,)).fingerprint()
