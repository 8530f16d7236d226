"""`online.tabular` by what it does: blocks of any size, late labels, classes and columns that come and go, values of any size, damage."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.online.test_learning import block

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import StoreError
from mapsto.kinds import Block, Model
from mapsto.nn.online.native_tabular import NativeTabular
from mapsto.nn.online.tabular import TabularLearner


def learner(task: Any = "classes", **fields: Any) -> TabularLearner:
    given: dict[str, Any] = {
        **{"forests": True, "labels": True, "most_categories": 100, "most_late": 100},
        **{"late_bytes": 2.0**20, "late_seconds": None, "seed": 0},
        **fields,
    }
    return TabularLearner({}, task=task, **given)


def numbers(x: np.ndarray, y: Any, names: str = "abcdefghij", **fields: Any) -> Block:
    """Events of numbers x (N, D); labels are strings, numbers, or None."""
    made = block({names[column]: x[:, column].tolist() for column in range(x.shape[1])}, list(y))
    made = dataclasses.replace(made, has_x=np.ones(len(x), bool), **fields)
    if all(isinstance(label, float) for label in y):
        return dataclasses.replace(made, y=np.array(y))
    return made


def draws(count: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, columns))


def state(live: TabularLearner) -> tuple[Any, ...]:
    arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in live.arrays().items()}
    return live.signature, arrays, live.values()


def right(scores: np.ndarray, y: Any, live: TabularLearner) -> np.ndarray:
    return np.array([live.signature.classes[best] for best in scores.argmax(1)]) == np.array(y)


# ------------------------------------------------------------------------------------------------------ blocks of any size

EVENTS = st.lists(
    st.tuples(
        st.fixed_dictionaries(
            {},
            optional={
                "d": st.sampled_from([1.0, -2.5, 1e9, 1e9 + 1, np.inf]),
                "c": st.sampled_from(["red", "blue", "green", "grey", "black"]),
                "b": st.sampled_from([0.5, 3.0, 1e99]),
            },
        ),
        st.sampled_from([(0.0, 1.0), (2.0, -1.0), (0.5, 0.5), (np.nan, 1.0)]),
        st.sampled_from(["", "q1", "q2", "q3"]),
        st.sampled_from([None, None, "1", "2", "nan"]) | st.integers(0, 9).map(str),
    ),
    min_size=1,
    max_size=30,
)


def cut(whole: Block, sizes: list[int]) -> list[Block]:
    """The events in blocks of these sizes, one after another."""
    found: list[Block] = []
    at = 0
    while at < len(whole):
        size = sizes[len(found) % len(sizes)]
        found.append(whole.take(at, min(at + size, len(whole))))
        at += size
    return found


def learnt(live: TabularLearner, blocks: list[Block]) -> tuple[list[bytes], Any]:
    """What each event was answered, without the classes that only later events brought, and the state after all."""
    rows = [row for each in blocks for row in live.learn(each)]
    return [row[: 0 if np.isnan(row).any() else len(np.trim_zeros(row, "b"))].tobytes() for row in rows], state(live)


@settings(max_examples=25, deadline=None)
@given(
    events=EVENTS,
    vectors=st.booleans(),
    cuts=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    task=st.sampled_from(["classes", "values"]),
)
def test_blocks_of_any_size(events: list[Any], vectors: bool, cuts: list[int], task: Any) -> None:
    names = dict.fromkeys(name for x, *_ in events for name in x)
    x = {name: [given.get(name) for given, *_ in events] for name in names}
    whole = block(x or {"d": [None] * len(events)}, [y for *_, y in events], [name for _, _, name, _ in events])
    if vectors:  # of events with features and of late labels as before
        whole = dataclasses.replace(whole, x={**whole.x, "v": np.array([vector for _, vector, *_ in events])})
    one, all_, some = (
        learnt(learner(task, most_late=2, most_categories=3), cut(whole, sizes)) for sizes in ([1], [99], cuts)
    )
    assert one == all_ == some


def test_a_question_and_an_explanation_change_nothing() -> None:
    x = draws(300, 3)
    live = learner()
    live.learn(numbers(x, ["no" if a > 0 else "yes" for a in x[:, 0]]))
    before = state(live)
    live.predict(numbers(np.full((2, 4), 7.0), [None] * 2))
    live.predict(block({"a": ["red", ""]}, [None] * 2))
    live.explain(numbers(x[:3], [None] * 3))
    live.shares(), live.importance()
    assert state(live) == before


# ------------------------------------------------------------------------------------------------------------ explanations


def test_an_answer_is_explained_by_members_past_events_and_columns() -> None:
    x = np.round(draws(400, 3), 3)
    words = ["red" if value > 0 else "blue" for value in x[:, 1]]
    y = ["high" if value > 0.2 else "low" for value in x[:, 2]]
    live = learner()
    live.learn(block({"a": x[:, 0].tolist(), "c": words, "z": x[:, 2].tolist()}, y))
    asked = block({"a": [x[5, 0], math.nan], "c": [words[5], ""], "z": [x[5, 2], x[6, 2]]}, [None] * 2)
    (known, other) = live.explain(asked)
    assert known["nearest"][0] == {
        "distance": 0.0,
        "features": {"a": x[5, 0], "c": words[5], "z": x[5, 2]},
        "label": y[5],
    }
    distances = [each["distance"] for each in known["nearest"]]
    assert len(distances) == 15
    assert distances == sorted(distances)
    assert "forest" in known["members"]
    assert all(sum(p.values()) == pytest.approx(1.0) for p in known["members"].values())
    assert max(known["members"]["forest"].items(), key=lambda each: each[1])[0] == y[5]
    assert sum(known["shares"].values()) == pytest.approx(1.0)
    assert len(other["nearest"]) == 15
    gains = live.importance()
    assert max(gains, key=lambda name: gains[name]) == "z"
    assert sum(gains.values()) == pytest.approx(1.0)


def test_an_event_that_would_be_set_aside_has_no_explanation() -> None:
    live = learner()
    assert live.explain(block({"a": [1.0]}, [None]))[0]["nearest"] == []
    live.learn(numbers(draws(20, 1), ["y", "n"] * 10))
    assert live.explain(block({"a": [np.inf]}, [None])) == [{}]


def test_the_fast_preset_has_no_forest() -> None:
    made = online.tabular(stream=streams.sea(events=300), preset="fast")
    live: Any = made(None).open()
    assert not any("forest" in name for name in live.shares())
    assert live.importance() == {}
    assert any("forest" in name for name in learner().shares())


# ------------------------------------------------------------------------------------------------------------- late labels


def questions(ids: list[str], x: np.ndarray, times: Any = None) -> Block:
    made = dataclasses.replace(numbers(x, [None] * len(ids)), ids=np.array(ids, object))
    return made if times is None else dataclasses.replace(made, times=np.array(times, float))


def answers(ids: list[str], y: list[Any], times: Any = None) -> Block:
    made = block({"a": [None] * len(ids)}, y, ids)
    return made if times is None else dataclasses.replace(made, times=np.array(times, float))


def test_a_snapshot_with_labels_pending_goes_on_to_the_bit() -> None:
    x = draws(240, 2)
    y = ["u" if a * b > 0 else "w" for a, b in x]
    whole = learner()
    ids = [f"q{event}" for event in range(240)]
    for at in range(0, 240, 40):
        whole.learn(questions(ids[at : at + 40], x[at : at + 40]))
        whole.learn(answers(ids[max(at - 20, 0) : at + 20], y[max(at - 20, 0) : at + 20]))
        again = learner()
        again.restore(whole.signature, whole.arrays(), whole.values())
        assert state(again) == state(whole)
        more = questions(["n"], x[:1])
        first, second = (learner(), learner())
        for each in (first, second):
            each.restore(whole.signature, whole.arrays(), whole.values())
        assert learnt(first, [more, answers(["n"], ["u"])]) == learnt(second, [more, answers(["n"], ["u"])])
        whole = again
    assert whole.values()["late_ids"] == ids[220:]


def test_the_oldest_questions_are_given_up_first() -> None:
    live = learner(most_late=3)
    live.learn(questions(list("abcde"), draws(5, 2)))
    assert (live.values()["late_ids"], live.values()["given_up"]) == (["c", "d", "e"], 2)
    live.learn(questions(["c"], draws(1, 2)))  # asked again: now the newest
    live.learn(questions(["f"], draws(1, 2)))
    assert live.values()["late_ids"] == ["e", "c", "f"]


def test_questions_are_kept_within_their_bytes_as_classes_and_columns_come() -> None:
    most = 40_000.0
    live = learner(late_bytes=most, most_late=10_000, labels=False)
    names = iter(f"q{number}" for number in range(10_000))

    def kept() -> int:
        return sum(array.nbytes for array in live._late.arrays)

    live.learn(questions([next(names) for _ in range(300)], draws(300, 2)))
    before = len(live.values()["late_ids"])
    for step in range(40):
        live.learn(numbers(draws(3, 2), [f"class {3 * step + each}" for each in range(3)]))
        assert kept() <= most
        live.learn(questions([next(names) for _ in range(30)], draws(30, 2 + step % 5)))
        assert kept() <= most
    assert before > 10 * len(live.values()["late_ids"]) > 0
    assert live.values()["late_ids"][-1] == f"q{300 + 40 * 30 - 1}"
    oldest = live.values()["late_ids"][0]
    scores = live.learn(answers([oldest], ["class 1"]))
    assert np.isfinite(scores).all()
    assert live.aside == {}


def test_questions_are_given_up_after_their_hours() -> None:
    live = learner(late_seconds=10.0)
    live.learn(questions(list("abc"), draws(3, 1), [0.0, 5.0, 8.0]))
    live.learn(answers(["c"], ["y"], [14.0]))
    assert (live.values()["late_ids"], live.values()["given_up"]) == (["b"], 1)
    assert np.isnan(live.learn(answers(["b"], ["y"], [15.5]))).all()
    assert live.aside == {"a label of an unknown id": 1}


def test_a_label_of_what_is_unknown_or_labelled_already_is_set_aside() -> None:
    live = learner()
    live.learn(questions(["a"], draws(1, 1)))
    live.learn(answers(["a", "a", "never"], ["y", "y", "y"]))
    assert live.aside == {"a label of an unknown id": 2}
    assert live._native.learnt == 1


def test_a_late_label_is_scored_as_it_was_asked_and_learnt_by_the_answers_of_then() -> None:
    x = draws(200, 2)
    y = ["u" if value > 0 else "w" for value in x[:, 0]]
    live = learner()
    live.learn(numbers(x[:100], y[:100]))
    asked = live.learn(questions(["q"], x[100:101]))
    live.learn(numbers(x[101:], y[101:]))
    assert live.learn(answers(["q"], [y[100]])).tobytes() == asked.tobytes()


# ---------------------------------------------------------------------------------------- classes and columns that come and go


def test_a_new_class_is_recalled_soon() -> None:
    draw = np.random.default_rng(1)
    centres = np.array([[0, 0], [6, 0], [0, 6], [6, 6]])
    live = learner()
    recalled: list[float] = []
    for known in range(1, 5):
        kinds = draw.integers(0, known, 80)
        kinds[:40] = known - 1
        scores = live.learn(numbers(centres[kinds] + draw.normal(size=(80, 2)), [f"k{kind}" for kind in kinds]))
        recalled.append(float(right(scores, [f"k{kind}" for kind in kinds], live)[5:40].mean()))
    assert min(recalled) > 0.8


def test_a_feature_that_vanishes_and_values_that_are_missing() -> None:
    x = draws(1500, 3)
    y = ["u" if a + b > 0 else "w" for a, b, _ in x]
    x[:, 2] = x[:, 0]
    x[np.random.default_rng(2).random((1500, 3)) < 0.1] = np.nan
    x[700:, 0] = np.nan
    live = learner()
    scores = live.learn(numbers(x, y))
    assert right(scores, y, live)[500:700].mean() > 0.8
    assert right(scores, y, live)[900:].mean() > 0.8
    again = live.learn(dataclasses.replace(numbers(x[:, 1:], y), x={"b": x[:, 1], "c": x[:, 2]}))
    assert right(again, y, live)[:700].mean() > 0.8


def test_one_class_only() -> None:
    live = learner()
    scores = live.learn(numbers(draws(50, 2), ["only"] * 50))
    assert scores[1:] == pytest.approx(1.0)
    assert live.predict(numbers(draws(3, 2), [None] * 3)) == pytest.approx(1.0)


def test_constant_columns_and_words_beyond_the_categories() -> None:
    count = 400
    y = ["u" if event % 3 else "w" for event in range(count)]
    live = learner(most_categories=5, labels=False)
    words = [f"{label}{event % 2}" if event > 60 else f"word {event}" for event, label in enumerate(y)]
    scores = live.learn(
        block({"a": [3.0] * count, "c": words, "k": ["same"] * count, "s": [label == "u" for label in y]}, y)
    )
    assert live.signature.columns[1].categories[:5] == tuple(f"word {event}" for event in range(5))
    assert right(scores, y, live)[100:].mean() > 0.95
    (doubt,) = live.doubts
    assert "column 'c' has more words" in doubt
    (explained,) = live.explain(block({"a": [3.0], "c": ["u0"], "k": ["same"], "s": [1.0]}, [None]))
    assert explained["nearest"][0]["distance"] == 0.0


def test_events_without_any_column_are_answered_by_their_labels() -> None:
    live = learner()
    for _ in range(3):
        live.learn(numbers(np.zeros((20, 0)), ["u", "w"] * 10))
    scores = live.learn(numbers(np.zeros((20, 0)), ["u", "w"] * 10))
    assert right(scores, ["u", "w"] * 10, live).mean() > 0.9
    assert live.size == (0, 2)
    again = learner()
    again.restore(live.signature, live.arrays(), live.values())
    assert state(again) == state(live)


def test_many_classes() -> None:
    draw = np.random.default_rng(0)
    centres = 10 * draw.normal(size=(300, 4))
    kinds = np.concatenate([np.arange(300), draw.integers(0, 300, 100)])
    live = learner()
    scores = live.learn(numbers(centres[kinds] + 0.1 * draw.normal(size=(400, 4)), [f"k{kind}" for kind in kinds]))
    assert right(scores, [f"k{kind}" for kind in kinds], live)[300:].mean() > 0.9


def test_many_columns() -> None:
    x = draws(250, 500)
    y = ["u" if value > 0 else "w" for value in x[:, 17]]
    live = learner()
    scores = live.learn(dataclasses.replace(block({f"c{at:03}": x[:, at].tolist() for at in range(500)}, y)))
    assert np.isfinite(scores).all()
    gains = live.importance()
    assert max(gains, key=lambda name: gains[name]) == "c017"


# ------------------------------------------------------------------------------------------------------------- odd values


def test_huge_numbers_leave_the_answers_finite() -> None:
    x = draws(400, 3)
    y = ["u" if value > 0 else "w" for value in x[:, 1]]
    x[::7, 0], x[3::11, 2] = 1e99, -1e100
    live = learner()
    scores = live.learn(numbers(x, y))
    assert np.isfinite(scores).all()
    assert right(scores, y, live)[100:].mean() > 0.85


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e40, 1e99])
def test_values_of_any_size(scale: float) -> None:
    x = draws(500, 2)
    y = scale * (x[:, 0] + np.abs(x[:, 1]))
    live = learner("values")
    scores = live.learn(numbers(x, y.tolist()))[:, 0]
    assert np.isfinite(scores).all()
    error, spread = np.abs(scores - y)[200:].mean(), np.abs(y - y.mean())[200:].mean()
    assert error < 0.5 * spread
    (said,) = live.explain(numbers(x[:1], [None]))
    assert said["members"]["forest"] == pytest.approx(y[0], abs=spread)


def test_values_far_from_zero_keep_their_digits_in_trees() -> None:
    x = draws(500, 2)
    y = 1e9 + x[:, 0]
    live = learner("values")
    live.learn(numbers(x, y.tolist()))
    said = [each["members"]["forest"] for each in live.explain(numbers(x[-50:], [None] * 50))]
    assert np.abs(np.array(said) - y[-50:]).mean() < 0.3


def test_one_value_beyond_all_others_spoils_nothing_for_good() -> None:
    x = draws(400, 2)
    y = np.where(np.arange(400) == 100, 1e60, 0.0)
    live = learner("values")
    assert np.isfinite(live.learn(numbers(x, y.tolist()))).all()


def test_labels_that_are_no_values_are_set_aside() -> None:
    live = learner("values")
    labels = np.array([1.0, np.nan, np.inf, -1e101, 2.0])
    live.learn(dataclasses.replace(numbers(draws(5, 1), [1.0] * 5), y=labels))
    assert live.aside == {"an empty, NaN or infinite label": 3}
    assert live._native.learnt == 2


def test_values_that_drift_are_followed_better_than_their_running_mean() -> None:
    x = draws(1500, 3)
    turn = np.where(np.arange(1500) < 700, 1.0, -1.0)
    y = turn * x[:, 0] + 5.0 * (turn < 0) + 0.1 * draws(1500, 1, seed=4)[:, 0]
    live = learner("values")
    error = np.abs(live.learn(numbers(x, y.tolist()))[:, 0] - y)
    running = np.abs(np.cumsum(y) / np.arange(1, 1501) - y)
    assert error[300:700].mean() < 0.4 * running[300:700].mean()
    assert error[1000:].mean() < 0.4 * running[1000:].mean()


# -------------------------------------------------------------------------------------------------------------- memory, damage


def test_memory_does_not_grow_with_events() -> None:
    live = learner(forests=False)
    sizes: list[int] = []
    for seed in range(3):
        x = draws(5000, 2, seed)
        live.learn(numbers(x, ["u" if value > 0 else "w" for value in x[:, 0]]))
        sizes.append(sum(array.nbytes for array in live.arrays().values()))
    assert sizes[1] == sizes[2]


def grown(task: Any = "classes") -> TabularLearner:
    x = draws(60, 2)
    x[4::9, 0] = np.nan
    live = learner(task)
    y = [float(value) if task == "values" else ("u" if value > 0 else "w") for value in x[:, 1]]
    words = ["red" if value > 0 else "blue" for value in x[:, 0]]
    made = block({"a": x[:, 0].tolist(), "b": words, "c": x[:, 1].tolist()}, y)
    live.learn(dataclasses.replace(made, y=np.array(y)) if task == "values" else made)
    live.learn(block({"a": [1.0, 2.0], "b": ["red", "blue"], "c": [0.0, 1.0]}, [None] * 2, ["p", "q"]))
    return live


def model_of(live: TabularLearner, arrays: Mapping[str, Any]) -> Model:
    made: Any = online.tabular(stream=streams.sea(), late=100)
    given = made.open(None, None, Context()).result()
    return dataclasses.replace(given, signature=live.signature, arrays=arrays, values=live.values())


def damaged(arrays: Mapping[str, Any], draw: np.random.Generator) -> dict[str, Any]:
    """One array cut, longer, of another type, with other bytes, or gone."""
    name = sorted(arrays)[draw.integers(len(arrays))]
    array, turn = arrays[name], draw.integers(5)
    if turn == 0:
        return {other: kept for other, kept in arrays.items() if other != name}
    if turn == 1:
        array = array[: draw.integers(len(array) + 1)]
    elif turn == 2:
        array = np.concatenate([array, array[:2]])
    elif turn == 3:
        array = array.astype(["<f8", "<i4", "<i8", "|u1"][draw.integers(4)], casting="unsafe")
    else:
        raw = bytearray(array.tobytes())
        for _ in range(draw.integers(1, 5) if raw else 0):
            raw[draw.integers(len(raw))] = draw.integers(256)
        array = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    return {**arrays, name: array}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("task", ["classes", "values"])
def test_a_damaged_state_is_refused_or_can_be_gone_on_with(task: Any) -> None:
    live, draw = grown(task), np.random.default_rng(0)
    arrays = live.arrays()
    more = numbers(draws(10, 3), [1.0] * 10 if task == "values" else ["u"] * 10, "abc")
    more = dataclasses.replace(more, x={**more.x, "b": np.array(["red"] * 10, object)})
    refused = 0
    for _ in range(150):
        try:
            opened = model_of(live, damaged(arrays, draw)).open()
        except StoreError:
            refused += 1
            continue
        opened.predict(more)
        opened.learn(more)
    assert 80 < refused < 150


HARM: dict[str, Any] = {
    "work that is owed": ("forest0.credit", 0, 1e300),
    "samples of more weight than there are events": ("forest0.samples", 1, 5000),
    "a word of no category": ("ring.x", 1, 7.0),
    "a word below 0": ("ring.x", 1, -3.0),
    "a number that is infinite": ("ring.x", 0, np.inf),
    "more inputs than columns have": ("inputs.width", 0, 2_000_000_000),
    "an input of two columns": ("inputs.number_inputs", 2, 1),
    "NaN in a linear weight": ("linear0.weights", 0, np.nan),
    "NaN in the network": ("mlp.first", 3, np.nan),
    "NaN in least squares": ("squares.inverse", 0, np.nan),
    "NaN in a mixture": ("mixer.weights", 0, np.nan),
    "an empty leaf": ("forest0.leaf_counts", slice(None), 0.0),
    "a node before its parent": ("forest0.nodes", slice(8, 12), 0),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_state_that_would_crash_hang_or_spoil_every_answer_is_refused(harm: str) -> None:
    live = grown()
    arrays = live.arrays()
    name, place, value = HARM[harm]
    array = arrays[f"learner.{name}"].copy()
    array[place] = value
    with pytest.raises(StoreError, match=r"the model is not as online\.tabular makes it"):
        model_of(live, {**arrays, f"learner.{name}": array}).open()


def test_a_word_of_a_question_that_is_no_category_is_refused() -> None:
    live = grown()
    arrays = live.arrays()
    for value in (-1.0, 0.5, 9.0):
        rows = arrays["late_rows"].copy()
        rows[0, 1] = value
        with pytest.raises(StoreError, match="is none of its categories"):
            model_of(live, {**arrays, "late_rows": rows}).open()


def test_what_was_refused_leaves_nothing_behind() -> None:
    fields: dict[str, Any] = {"values": False, "forests": True, "labels": True, "work": 0.0, "seed": 0}
    good = {name.removeprefix("learner."): array for name, array in grown().arrays().items() if "late" not in name}
    native = NativeTabular(**fields)
    for name in ("ring.y", "mlp.second"):
        with pytest.raises(ValueError, match=r"ring|second layer"):
            native.restore({**good, name: good[name][:-1]}, columns=3)
    with pytest.raises(ValueError, match="another type"):
        native.restore({"ring.y": np.zeros(3, np.int64)}, columns=3)
    native.restore(good, columns=3)
    assert all((native.arrays()[name] == array).all() for name, array in good.items() if array.dtype.kind != "f")


def test_classes_beyond_a_thousand_are_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapsto.nn.online.tabular.MOST_CLASSES", 5)
    live = learner(forests=False)
    live.learn(numbers(draws(20, 2), [f"c{n % 8}" for n in range(20)]))
    assert live.signature.classes == ("c0", "c1", "c2", "c3", "c4")
    assert live.aside == {"a class beyond the 5 that are kept": 6}
