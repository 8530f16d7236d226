"""The record of test-then-train by hand, and the same whatever the size of blocks."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from tests.online.test_learning import block

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.nn.online.learning import Answers
from mapsto.nn.online.pace import Pace
from mapsto.nn.online.prequential import FADING, WINDOW, ClassRecord, Record, ValueRecord
from mapsto.nn.online.stretches import SIZE
from mapsto.testing.streams import model_digest

NAMES = ("a", "b", "c")
BLOCK = next(streams.sea(events=5000).open(size=5000))


def answers(scores: Any, labels: Any) -> Answers:
    return Answers(np.arange(len(labels)), np.array(scores, float), np.array(labels))


def drawn(count: int, task: str) -> Answers:
    draw = np.random.default_rng(1)
    if task == "values":
        return answers(draw.normal(3, 1, (count, 1)), draw.normal(3, 1, count))
    scores = draw.dirichlet(np.ones(3), count)
    return answers(scores, np.where(draw.random(count) < 0.3, scores.argmax(1), draw.integers(0, 3, count)))


def fed(record: Record, given: Answers, size: int) -> Record:
    for at in range(0, len(given.labels), size):
        part = slice(at, at + size)
        count = len(given.labels[part])
        record.see(
            at, BLOCK.take(at, at + size), Answers(np.arange(count), given.scores[part], given.labels[part]), NAMES
        )
    return record


def test_figures_of_classes_are_those_worked_out_by_hand() -> None:
    scores = [[0, 0, 0], [0.9, 0, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0.5, 0.3, 0.2]]
    labels = [0, 1, 1, 0, 2]
    record = ClassRecord()
    errors = record.see(10, BLOCK.take(10, 15), answers(scores, labels), NAMES)
    right = [0, 0, 1, 1, 0]  # nothing was known at the first
    assert errors.tolist() == [1, 1, 0, 0, 1]
    figures = record.figures()
    assert figures["accuracy"] == figures["window_accuracy"] == 40
    weights = FADING ** np.arange(4, -1, -1)
    assert figures["faded_accuracy"] == pytest.approx(100 * weights @ right / weights.sum())
    chosen = [1e-15, 0.8, 0.6, 0.2]  # the first was asked before any label was known
    assert (record.blind, record.late) == (1, 0)
    assert figures["log_loss"] == pytest.approx(-sum(map(math.log, chosen)) / 4)
    chance = (2 * 3 + 2 * 1 + 1 * 0) / 25  # labels of a, b, c times answers: none at the first
    assert figures["kappa"] == pytest.approx((0.4 - chance) / (1 - chance))
    assert figures["kappa_temporal"] == pytest.approx((0.4 - 0.2) / (1 - 0.2))  # the label before is right once
    assert record.baselines() == {"no change": 20, "majority": 0}  # it answers a, a, b, b: none is right
    assert record.classes(NAMES) == [
        {"class": "a", "labels": 2, "recall": 50, "first": 11},
        {"class": "b", "labels": 2, "recall": 50, "first": 12},
        {"class": "c", "labels": 1, "recall": 0, "first": 15},
    ]


def test_figures_of_values_are_those_worked_out_by_hand() -> None:
    """The first answer was given before any value was known, and counts in no figure."""
    record, predicted, true = ValueRecord(), np.array([0.0, 2, 3, 5]), np.array([1.0, 3, 3, 7])
    errors = record.see(0, BLOCK.take(0, 4), answers(predicted[:, None], true), ())
    figures, away = record.figures(), np.abs(predicted - true)[1:]
    assert np.isnan(errors[0])
    assert (record.labels, record.blind) == (4, 1)
    weights = FADING ** np.arange(2, -1, -1)
    assert figures == pytest.approx(
        {
            "mae": away.mean(),
            "window_mae": away.mean(),
            "faded_mae": weights @ away / weights.sum(),
            "rmse": math.sqrt((away**2).mean()),
            "r2": 1 - (away**2).mean() / ((true - true.mean()) ** 2).mean(),
        }
    )
    assert record.baselines() == pytest.approx({"last value": (2 + 0 + 4) / 3, "mean": (2 + 1 + 7 - 7 / 3) / 3})


def test_values_that_were_asked_before_any_label_count_in_no_figure_when_their_labels_come() -> None:
    stream = streams.late_labels(stream=streams.friedman(events=300), events=50)
    live = online.tabular(stream=stream, preset="fast").open(None, None, Context(seed=0))
    for events in stream.open(size=64):
        live.advance(events)
    account = live.account()
    # the label of event n comes after question n + 50, so that so many were asked before the first
    assert account["blind"] == 50
    assert account["labels"] == 300
    assert account["figures"]["mae"] < account["baselines"]["mean"]


@pytest.mark.parametrize("task", ["classes", "values"])
def test_blocks_of_any_size_and_a_stop_give_the_same_record(task: str) -> None:
    given, kind = drawn(1500, task), ClassRecord if task == "classes" else ValueRecord

    def told(record: Record) -> str:
        return repr((record.row(), record.baselines(), record.classes(NAMES), record.stretches.worst))

    whole = told(fed(kind(), given, 1500))
    assert told(fed(kind(), given, 7)) == told(fed(kind(), given, 1)) == whole
    first = fed(kind(), Answers(given.events[:1100], given.scores[:1100], given.labels[:1100]), 64)
    second = kind()
    second.restore(first.snapshot())
    for at in range(1100, 1500, 100):
        part = slice(at, at + 100)
        rest = Answers(np.arange(100), given.scores[part], given.labels[part])
        second.see(at, BLOCK.take(at, at + 100), rest, NAMES)
    assert told(second) == whole


def test_the_window_holds_the_last_thousand() -> None:
    right, wrong = answers([[1.0, 0]] * 900, [0] * 900), answers([[1.0, 0]] * WINDOW, [1] * WINDOW)
    record = ClassRecord()
    for each, expected in ((wrong, 0), (right, 90)):
        record.see(0, BLOCK.take(0, len(each.labels)), each, NAMES[:2])
        assert record.figures()["window_accuracy"] == expected


def test_worst_stretches_do_not_overlap_and_keep_what_was_most_wrong() -> None:
    labels = np.zeros(SIZE * 10, int)
    scores = np.tile([0.9, 0.1], (len(labels), 1))
    for number, wrong in enumerate((3, 9, 1, 8, 0, 7, 6, 0, 5, 4)):
        labels[number * SIZE : number * SIZE + wrong] = 1
        scores[number * SIZE] = 0.99, 0.01
    record = fed(ClassRecord(), answers(np.pad(scores, ((0, 0), (0, 1))), labels), 150)
    worst = record.stretches.worst
    assert [(each["from"] - 1) // SIZE for each in worst] == [1, 3, 5, 6, 8]
    assert [round(each["error"] * SIZE) for each in worst] == [9, 8, 7, 6, 5]
    assert all(each["to"] - each["from"] == SIZE - 1 for each in worst)
    first = worst[0]["examples"]
    assert [each["event"] for each in first] == [201, 202, 203]
    expected = {name: column[200] for name, column in BLOCK.x.items()}
    assert first[0]["values"] == expected
    assert (first[0]["answer"], first[0]["label"], first[0]["confidence"]) == ("a", "b", 0.99)


def test_the_account_of_a_learner_is_json_and_of_its_own_stream() -> None:
    made = online.softmax(stream=streams.sea(events=1200), every=500)
    live = made.open(None, None, Context())
    rows = [row for part in made.stream.open() for row in live.advance(part)]
    told = json.loads(json.dumps(live.account()))
    assert (told["task"], told["main"], told["events"], told["labels"]) == ("classes", "accuracy", 1200, 1200)
    assert told["figures"]["accuracy"] > max(told["baselines"].values())
    assert [row["mean_accuracy"] for _, row in rows][-1] == pytest.approx(told["figures"]["accuracy"], abs=2)
    assert {each["class"]: each["first"] for each in told["classes"]} == {"yes": 1, "no": 2}
    assert told["measured"]["p50_us"] <= told["measured"]["p99_us"]
    assert [row[0] for row in told["measured"]["rows"]] == [500, 1000]
    after = made.open(live.result(), None, Context())
    after.advance(block({"x1": [1.0, np.inf], "x2": [1.0, 1.0]}, ["yes", "maybe"]))
    told = after.account()
    assert {each["class"]: each["first"] for each in told["classes"]} == {"yes": 0, "no": 0}
    assert (told["labels"], told["aside"]) == (1, {"an infinite number in column 'x1'": 1})


def test_times_are_told_as_percentiles_of_events_and_notes_stay_few() -> None:
    pace = Pace()
    for _ in range(98):
        pace.took(1e-3, 1)
    for _ in range(2):
        pace.took(1.0, 1)
    told = pace.told()
    assert told["p50_us"] == pytest.approx(1e3, rel=0.07)
    assert told["p99_us"] == pytest.approx(1e6, rel=0.07)
    for number in range(3000):
        pace.mark(number)
    rows = [row[0] for row in pace.told()["rows"]]
    assert 100 <= len(rows) <= 200
    assert {int(b - a) for a, b in itertools.pairwise(rows)} == {16}


def test_drifts_are_marked_counted_and_change_no_model() -> None:
    stream = streams.sea(events=3200, concept=1600, thresholds=(4.0, 16.0), noise=0.0)
    plain, watched = online.softmax(stream=stream), online.softmax(stream=stream, drift=("adwin",))

    def run(made: Any, size: int, stop: int = 0) -> Any:
        live = made.open(None, None, Context())
        for part in stream.open(size=size):
            live.advance(part)
            if stop and live.step >= stop:
                live, stop = made.open(None, live.snapshot(), Context()), 0
        return live

    live = run(watched, 256)
    told = live.account()
    assert told["drift_count"] == len(told["drifts"]) > 0
    errors = [each["event"] for each in told["drifts"] if each["what"] == "error (adwin)"]
    assert errors
    assert all(1600 < event < 2200 for event in errors)
    assert run(watched, 1000, stop=1700).account()["drifts"] == told["drifts"]
    assert model_digest(live.result()) == model_digest(run(plain, 256).result())
    assert run(plain, 256).account()["drifts"] is None
    with pytest.raises(SpecError, match="adwn"):
        online.softmax(stream=stream, drift=("adwn",)).open(None, None, Context())
