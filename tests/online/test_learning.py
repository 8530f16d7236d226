"""Online learning by hand: what is scored, learnt, kept for later, set aside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mapsto import datasets, online, streams
from mapsto.context import Context
from mapsto.errors import DomainError, StoreError
from mapsto.kinds import Block, EventSignature, Model
from mapsto.nn.online.event_rows import EventRows
from mapsto.nn.online.learning import Answers, StreamLearner
from mapsto.nn.online.loop import Online
from mapsto.store import Store


def block(x: Mapping[str, Sequence[Any]], y: Sequence[Any], ids: Sequence[str] | None = None) -> Block:
    """Events; None is no label, and a value of None in every column no features."""
    count = len(y)
    has_x = np.array([any(values[event] is not None for values in x.values()) for event in range(count)])
    columns: dict[str, Any] = {}
    for name, values in x.items():
        words = any(isinstance(value, str) for value in values)
        empty = "" if words else np.nan
        columns[name] = np.array([empty if v is None else v for v in values], object if words else np.float64)
    return Block(
        times=np.arange(count, dtype=np.float64),
        ids=np.array(ids or [""] * count, object),
        x=columns,
        has_x=has_x,
        y=np.array(["" if label is None else label for label in y], object),
        has_y=np.array([label is not None for label in y]),
        next=count,
    )


def learner(**fields: Any) -> Any:
    made = online.softmax(stream=streams.sea(), **fields)
    return made.open(None, None, Context()).result().open()


def rows_of(rows: EventRows, given: Block, *, learn: bool = True) -> np.ndarray:
    found = [row for _, row in rows.rows(given, dict(given.broken), learn=learn) if row is not None]
    return np.vstack([np.pad(row, (0, rows.width - len(row))) for row in found])


def test_numbers_are_scaled_by_what_came_up_to_them() -> None:
    values = [3.0, 5.0, np.nan, 10.0]
    rows = rows_of(EventRows({}, most_categories=9), block({"a": values}, ["y"] * 4))
    expected = [0.0, (5 - 4) / 1, 0.0, (10 - 6) / np.std([3, 5, 10])]
    assert rows[:, 1] == pytest.approx(expected)
    assert (rows[:, 0] == 1).all()


def test_a_large_offset_costs_no_digits() -> None:
    values = 1e9 + np.random.default_rng(0).standard_normal(500)
    rows = rows_of(EventRows({}, most_categories=9), block({"a": list(values)}, ["y"] * 500))
    assert rows[-1, 1] == pytest.approx((values[-1] - values.mean()) / values.std(), rel=1e-6)


def test_words_get_inputs_as_they_come_and_the_rest_share_one() -> None:
    rows = EventRows({}, most_categories=2)
    found = rows_of(rows, block({"a": ["red", "", "blue", "green", "red", "grey"]}, ["y"] * 6))
    assert found[:, 1:].argmax(1).tolist()[2:] == [1, 2, 0, 2]
    assert found[1, 1:].tolist() == [0, 0, 0]
    assert rows.width == 4
    assert [column.categories[:2] for column in rows.columns] == [("red", "blue")]


def test_a_column_that_comes_later_is_taken_up_and_one_that_goes_is_missing() -> None:
    rows = EventRows({}, most_categories=9)
    rows_of(rows, block({"a": [1.0, 2.0]}, ["y", "n"]))
    found = rows_of(rows, block({"b": [7.0, 9.0], "c": [None, "red"]}, ["y", "n"]))
    assert found.tolist() == [[1, 0, 0, 0], [1, 0, 1, 1]]
    assert [column.name for column in rows.columns] == ["a", "b", "c"]


def test_a_question_changes_nothing_and_has_no_input_for_what_is_new() -> None:
    rows = EventRows({}, most_categories=9)
    rows_of(rows, block({"a": [1.0, 3.0], "b": ["red", "blue"]}, ["y", "n"]))
    before = {name: array.tolist() for name, array in rows.arrays().items()}
    found = rows_of(rows, block({"a": [5.0], "b": ["green"], "c": [1.0]}, [None]), learn=False)
    assert found.tolist() == [[1, (5 - 2) / 1, 0, 0]]
    assert {name: array.tolist() for name, array in rows.arrays().items()} == before


def test_scores_are_of_before_the_label() -> None:
    live = learner()
    scores = live.learn(block({"a": [1.0, 2.0, 3.0]}, ["yes", "no", "yes"]))
    assert scores[0].tolist() == [0, 0]  # no class was known
    assert scores[1].tolist() == [1, 0]  # one was
    assert scores[2].sum() == pytest.approx(1)
    assert live.signature.classes == ("yes", "no")


def test_it_learns_as_by_hand() -> None:
    live = learner(rate=0.5)
    live.learn(block({"a": [1.0, 3.0]}, ["n", "y"]))
    # the first label meets no other class; at the second z = (1, 1), p = (1/2, 1/2) once the class is there
    weights, squares = np.zeros((2, 2)), np.zeros((2, 2))
    gradient = np.array([[0.5, 0.5], [-0.5, -0.5]])
    squares += gradient**2
    weights -= 0.5 * gradient / np.sqrt(squares + 1e-8)
    z = np.array([1.0, (5 - 2) / 1])
    logits = weights @ z
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert live.predict(block({"a": [5.0]}, [None]))[0] == pytest.approx(expected)


def test_a_late_label_is_learnt_on_what_was_kept_and_scored_as_it_was_asked() -> None:
    late, at_once = learner(), learner()
    first = block({"a": [1.0, 4.0, 2.0]}, ["n", "y", "n"])
    for live in (late, at_once):
        live.learn(first)
    asked = late.learn(block({"a": [3.0]}, [None], ["q1"]))
    answered = late.learn(block({"a": [None]}, ["y"], ["q1"]))
    assert answered.tolist() == asked.tolist()
    at_once.learn(block({"a": [3.0]}, ["y"]))
    question = block({"a": [3.5]}, [None])
    assert late.predict(question).tolist() == at_once.predict(question).tolist()


def test_labels_that_belong_to_nothing_are_set_aside() -> None:
    live = learner(late=1)
    live.learn(block({"a": [1.0, 2.0]}, [None, None], ["q1", "q2"]))  # q1 makes room
    scores = live.learn(block({"a": [None] * 3}, ["y"] * 3, ["q1", "q2", "q2"]))
    assert np.isnan(scores).all(axis=1).tolist() == [True, False, True]
    assert live.aside == {"a label of an unknown id": 2}


def test_what_cannot_be_used_is_set_aside_with_its_reason() -> None:
    live = learner()
    live.learn(block({"a": [1.0, 2.0], "b": ["red", "blue"]}, ["y", "n"]))
    before = live.arrays()
    scores = live.learn(block({"a": [np.inf, 1e200, 2.0], "b": ["x", "y", "z"]}, ["y", "y", "nan"]))
    assert np.isnan(scores).all()
    scores = live.learn(block({"a": ["3.5", "much"], "b": ["red", "red"]}, ["y", "y"]))
    assert np.isnan(scores).all(axis=1).tolist() == [False, True]
    assert live.aside == {
        "an infinite number in column 'a'": 1,
        "a number beyond 1e+100 in column 'a'": 1,
        "an empty, NaN or infinite label": 1,
        "a word in the column of numbers 'a'": 1,
    }
    assert live.signature.columns[1].categories == ("red", "blue")
    assert before["weights"].shape == live.arrays()["weights"].shape


def test_it_follows_a_stream_that_drifts() -> None:
    run = online.softmax(stream=streams.sea(events=8000, concept=4000, thresholds=(8.0, 12.0), noise=0.0), every=1000)
    live = run.open(None, None, Context())
    rows = [row for part in run.items(None, Context()).open() for row in live.advance(part)]
    accuracy = [metrics["accuracy"] for _, metrics in rows]
    assert [n for n, _ in rows] == list(range(1000, 9000, 1000))
    assert min(accuracy[1:4]) > 93
    assert accuracy[4] < accuracy[3] < 100
    assert rows[-1][1]["mean_accuracy"] == pytest.approx(np.mean(accuracy))


def test_a_model_goes_on_where_it_stands(tmp_path: Any) -> None:
    first = online.softmax(stream=streams.sea(events=1500, concept=10_000))(None)
    second = online.softmax(stream=streams.sea(events=1500, concept=10_000, seed=1))
    store = Store(tmp_path)
    kept: Model = store.load(store.save(first))
    assert kept.position == 1500
    question = next(streams.sea(events=5, seed=3).open())
    assert kept.open().predict(question).tolist() == first.open().predict(question).tolist()
    assert store.save(second(kept)) == store.save(second(first)) != store.save(first)


def test_what_is_refused() -> None:
    model = online.softmax(stream=streams.sea(events=10))(None)
    other = Model(**{**vars(model), "learner": "online.other"})
    with pytest.raises(DomainError, match=r"the model is of online\.other"):
        online.softmax(stream=streams.sea(events=10))(other)
    with pytest.raises(StoreError, match="version 0; this mapsto has version 2"):
        Model(**{**vars(model), "version": 0}).open()
    with pytest.raises(DomainError, match=r"column 'image' holds arrays of shape \(1, 8, 8\)"):
        online.softmax(stream=streams.replay(data=datasets.digits(size=8)))(None)


def test_a_label_that_is_no_number_is_set_aside_however_it_is_written() -> None:
    live = learner()
    live.learn(block({"a": [1.0] * 4}, ["NaN", "Infinity", "-INF", "yes"]))
    assert live.aside == {"an empty, NaN or infinite label": 3}
    assert live.signature.classes == ("yes",)


class _Heard(Context):
    def show_message(self, text: str, level: int) -> None:
        pass


def heard(mapping: Any, value: Model | None, *blocks: Block) -> list[str]:
    ctx = _Heard()
    live = mapping.open(value, None, ctx)
    for each in blocks:
        live.advance(each)
    live.result()
    return ctx.warnings


def test_a_run_warns_of_what_spoils_it() -> None:
    learn = online.softmax(stream=streams.sea(), categories=2)
    assert heard(learn, None) == ["the stream holds no event"]
    assert "none had a label" in heard(learn, None, block({"a": [1.0]}, [None]))[0]
    assert heard(learn, None, block({"a": [1e300] * 64}, ["y", "n"] * 32)) == [
        "events are set aside and not learnt from: a number beyond 1e+100 in column 'a'",
        "of the stream's 64 events all were set aside, so that nothing was learnt",
    ]
    assert "one class, 'y'" in heard(learn, None, block({"a": [1.0]}, ["y"]))[0]
    words = block({"a": ["p", "q", "r"]}, ["y", "n", "y"])
    assert "column 'a' has more words" in heard(learn, None, words)[0]
    numbers = block({"a": [1.0] * 1001}, [str(n) for n in range(1001)])
    assert "more than 1000 classes" in heard(learn, None, numbers)[0]


def test_a_model_that_goes_on_is_not_blamed_for_what_was_set_aside_before() -> None:
    learn = online.softmax(stream=streams.sea(), every=2)
    live = learn.open(None, None, Context())
    live.advance(block({"a": [np.inf, 1.0, 2.0]}, ["y", "y", "n"]))
    before = live.result()
    good = block({"a": [1.0, 2.0]}, ["y", "n"])
    assert heard(learn, before, good) == []
    assert "infinite number" in heard(learn, before, block({"a": [np.inf, 1.0]}, ["y", "n"]))[0]
    ((_, row),) = learn.open(before, None, Context()).advance(block({"a": [np.inf, 1.0]}, ["y", "n"]))
    assert row["set_aside"] == 1


# ----------------------------------------------------------------------------------------------- what the loop asks for


def test_answers_come_once_a_block_with_the_scores_of_before_the_labels() -> None:
    live, told = learner(), []
    scores = live.learn(block({"a": [1.0, np.inf, 2.0, 3.0]}, ["y", "y", None, "n"]), told.append)
    live.learn(block({"a": [1.0]}, [None]), told.append)
    (answers,) = told
    assert answers.events.tolist() == [0, 3]
    assert answers.labels.tolist() == [0, 1]
    assert answers.scores.tolist() == scores[[0, 3]].tolist()
    assert answers.scores[0].tolist() == [0, 0]
    assert live.shares() == {}


class _Numbers(type(streams.sea())):
    """SEA's first number to be predicted from the others."""

    task = "values"

    def rows(self, start: int, stop: int) -> Any:
        x, _ = super().rows(start, stop)
        return x, x["x1"]


class _Last(StreamLearner):
    """Predicts the value before, times `factor`."""

    task = "values"
    size = (0, 0)
    signature = EventSignature()

    def __init__(self, factor: float) -> None:
        self.factor, self.last, self.aside = factor, 0.0, {}

    def learn(self, block: Block, answered: Any = None) -> np.ndarray:
        before = np.concatenate(([self.last], block.y[:-1]))
        scores, self.last = self.factor * before[:, None], float(block.y[-1])
        if answered is not None:
            answered(Answers(np.arange(len(block)), scores, block.y))
        return scores

    def arrays(self) -> dict[str, Any]:
        return {"last": np.array([self.last])}

    def values(self) -> dict[str, Any]:
        return {"task": "values", "aside": {}}

    def restore(self, signature: Any, arrays: Any, values: Any) -> None:
        (self.last,) = arrays["last"].tolist()


class Last(Online):
    """A learner of values, with a field of its own."""

    tasks = ("values",)
    factor: float = 1.0

    @classmethod
    def _learner(cls, fields: Any, types: Any, task: Any) -> StreamLearner:
        return _Last(fields["factor"])


def test_a_mapping_says_what_it_learns_and_gives_its_learner_its_fields_whole() -> None:
    with pytest.raises(DomainError, match=r"labels are numbers, but online\.softmax learns classes"):
        online.softmax(stream=_Numbers(events=9))(None)
    with pytest.raises(DomainError, match=r"labels are classes, but .* learns numbers"):
        Last(stream=streams.sea(events=9))(None)
    model = Last(stream=_Numbers(events=9))(None)
    assert dict(model.fields) == {"factor": 1.0, "late": 10_000, "categories": 1000}  # of a class outside mapsto
    assert Last.learner_of(dataclasses.replace(model, fields={})).factor == 1.0
    assert model.arrays["last"].tolist() == [next(_Numbers(events=9).open()).y[-1]]
    with pytest.raises(DomainError, match="the model has learnt values, and the stream's labels are classes"):
        online.softmax(stream=streams.sea(events=9))(dataclasses.replace(model, learner="online.softmax"))
