"""Events of all kinds, cut into blocks at any places: the same scores and the same model to the bit, and nothing is taken in silence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.online.test_learning import block, learner

from mapsto import online, streams
from mapsto.context import Context
from mapsto.errors import DataError, StoreError
from mapsto.kinds import Block, Model
from mapsto.store import Store
from mapsto.testing.streams import _learnt, model_digest

CELLS = [
    "1",
    "2.5",
    "-3",
    "1_000",
    "1,5",
    "0x10",
    "nan",
    "NA",
    "",
    "inf",
    "1e400",
    "red",
    '"re, d"',
    '"qu""o"',
    '5"',
    "٣",
    '"a\nb"',
    '"',
]
LINES = st.lists(
    st.tuples(
        st.sampled_from(["", "1", "2", "3"]),
        st.sampled_from(CELLS),
        st.sampled_from(CELLS),
        st.sampled_from(["", "u", "v", "w", "nan"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(lines=LINES, start=st.sampled_from(["1,2", "red,2", "NA,"]), more=st.integers(1, 9))
def test_a_table_in_blocks_of_any_size(
    tmp_path_factory: Any, lines: list[tuple[str, ...]], start: str, more: int
) -> None:
    file = tmp_path_factory.mktemp("csv") / "table.csv"
    file.write_text("\n".join(["id,a,b,y", f",{start},u", *map(",".join, lines)]), encoding="utf-8")
    stream = streams.csv(file=str(file), target="y", id="id")
    learn = online.softmax(stream=stream, late=2, categories=2, every=4)
    whole = _learnt(learn, None, stream, 10_000, 0)
    assert _learnt(learn, None, stream, 1, 0) == whole
    assert _learnt(learn, None, stream, more, 0) == whole


def test_a_quote_that_is_not_closed_takes_no_other_event_along(tmp_path: Path) -> None:
    file = tmp_path / "pipes.csv"
    file.write_text('size,y\n1,a\n"5 inch,b\n' + "2,a\n" * 30)
    blocks = list(streams.csv(file=str(file), target="y").open(size=4))
    assert sum(map(len, blocks)) == 32
    assert [len(each.broken) for each in blocks] == [1, 0, 0, 0, 0, 0, 0, 0]


def test_a_line_longer_than_any_is_one_broken_event(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("a,y\n1,u\n" + "x" * (3 << 20) + ",u\n2,v\n")
    (first, second, third) = streams.csv(file=str(file), target="y").open(size=1)
    assert (list(second.broken), third.y.tolist(), third.broken) == ([0], ["v"], {})
    (again,) = streams.csv(file=str(file), target="y").open(second.next)
    assert again.y.tolist() == ["v"]
    followed = streams.csv(file=str(file), target="y", follow=True).open(first.next, size=9)
    assert len(next(followed)) == 2


def test_a_quoted_cell_is_awaited_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "live.csv"
    file.write_text('a,y\n1,u\n"2\n')
    stream = streams.csv(file=str(file), target="y", follow=True)
    blocks = stream.open()
    assert len(next(blocks)) == 1
    with file.open("a") as more:
        more.write('",v\n')
    event = next(blocks)
    assert (event.y.tolist(), event.broken) == (["v"], {})


@pytest.mark.parametrize("at", [5, 10**6, -1, "4", None])
def test_a_file_that_another_has_replaced_is_not_read_on(tmp_path: Path, at: Any) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,y\n1,u\n2,v\n")
    stream = streams.csv(file=str(file), target="y")
    if at is None:
        assert [block.next for block in stream.open(12)] == []
        return
    with pytest.raises(DataError, match="no line begins at byte"):
        next(stream.open(at))


def test_a_file_without_events_cannot_be_followed_yet(tmp_path: Path) -> None:
    file = tmp_path / "empty.csv"
    file.write_text("a,y\n")
    with pytest.raises(DataError, match="begin once the first events"):
        streams.csv(file=str(file), target="y", follow=True).columns()


# ------------------------------------------------------------------------------------------------------------- going on


def test_going_on_with_other_limits_keeps_to_them() -> None:
    words = [f"w{n}" for n in range(6)]
    model = dataclasses.replace(_model(learner(categories=2, late=5), block({"a": words}, [None] * 6, words)))
    for categories, own in ((4, 4), (1, 2)):
        fields = {"categories": categories, "late": 2}
        live = online.softmax.learner_of(dataclasses.replace(model, fields=fields))
        live.learn(block({"a": [f"v{n}" for n in range(9)]}, ["y"] * 9))
        (column,) = live.signature.columns
        assert len([name for name in column.categories if not name.startswith("\0")]) == own
        assert live.values()["inputs"] == 2 + own
        assert live.values()["late_ids"] == words[-2:]


def _model(live: Any, *blocks: Block) -> Model:
    made = online.softmax(stream=streams.sea())
    for each in blocks:
        live.learn(each)
    given = made.open(None, None, Context()).result()
    return dataclasses.replace(given, signature=live.signature, arrays=live.arrays(), values=live.values())


def test_a_question_of_before_any_class_counts_as_wrong() -> None:
    made = online.softmax(stream=streams.sea(), every=2)
    live = made.open(None, None, Context())
    (row,) = live.advance(block({"a": [1.0, None]}, [None, "first"], ["q", "q"]))
    assert row[1]["accuracy"] == 0


def test_what_an_earlier_stream_set_aside_is_not_said_of_this_one() -> None:
    made, bad = online.softmax(stream=streams.sea()), block({"a": [1.0, np.inf]}, ["y", "n"])
    first = made.open(None, None, Context())
    first.advance(bad)
    context = Context()
    second = made.open(first.result(), None, context)
    second.advance(block({"a": [1.0]}, ["y"]))
    assert context.warnings == []
    second.advance(bad)
    assert len(context.warnings) == 1


# --------------------------------------------------------------------------------------------------- changed by hand


def _grown() -> Model:
    events = block({"a": [1.0, 2.0, 4.0], "b": ["red", "blue", "red"]}, ["y", "n", None], ["", "", "q"])
    return _model(learner(), events)


HARM: dict[str, Callable[[Model], Any]] = {
    "no weights": lambda m: {"arrays": {k: v for k, v in m.arrays.items() if k != "weights"}},
    "no inputs": lambda m: {"values": {k: v for k, v in m.values.items() if k != "inputs"}},
    "fewer classes": lambda m: {"signature": dataclasses.replace(m.signature, classes=("y",))},
    "a class twice": lambda m: {"signature": dataclasses.replace(m.signature, classes=("y", "y"))},
    "a column twice": lambda m: {"signature": dataclasses.replace(m.signature, columns=m.signature.columns[:1] * 2)},
    "no columns": lambda m: {"signature": dataclasses.replace(m.signature, columns=())},
    "another width": lambda m: {"values": {**m.values, "inputs": 9}},
    "ids": lambda m: {"values": {**m.values, "late_ids": ["q", "r"]}},
    "a field": lambda m: {"fields": {"rate": "quick"}},
    "a list": lambda m: {"values": {**m.values, "aside": [1]}},
    **{
        f"NaN in {name}": lambda m, name=name: {"arrays": {**m.arrays, name: np.full_like(m.arrays[name], np.nan)}}
        for name in ("weights", "squares", "scales", "late_rows", "late_scores")
    },
    **{
        f"{name} cut": lambda m, name=name: {"arrays": {**m.arrays, name: m.arrays[name][:-1]}}
        for name in ("weights", "squares", "scales", "late_rows", "late_scores", "number_inputs", "category_inputs")
    },
    "inputs that are one": lambda m: {"arrays": {**m.arrays, "category_inputs": np.array([1, 1])}},
}


@pytest.mark.parametrize("harm", HARM)
def test_a_model_changed_by_hand_is_refused(tmp_path: Path, harm: str) -> None:
    store, model = Store(tmp_path), _grown()
    assert model_digest(store.load(store.save(model))) == model_digest(model)
    changed = store.load(store.save(dataclasses.replace(model, **HARM[harm](model))))
    with pytest.raises(StoreError, match=r"the model is not as online\.softmax makes it.*run its stream again"):
        changed.open()


def test_a_model_of_what_is_no_learner_is_refused() -> None:
    with pytest.raises(StoreError, match="no online learner"):
        dataclasses.replace(_grown(), learner="evaluate.size", version=1).open()


# ------------------------------------------------------------------------------------- columns and classes that come and go

EVENTS = st.lists(
    st.tuples(
        st.fixed_dictionaries(
            {},
            optional={
                "d": st.sampled_from([1.0, -2.5, 1e9, 1e9 + 1, np.inf]),
                "c": st.sampled_from(["red", "blue", "green", "grey", "black"]),
                "b": st.sampled_from([0.5, 3.0, 1e99, -np.inf]),
                "a": st.sampled_from(["u", "v", "w"]),
            },
        ),
        st.sampled_from(["", "q1", "q2", "q3"]),
        st.sampled_from([None, None, "y", "n", "nan", ""]) | st.integers(0, 9).map(str),
    ),
    min_size=1,
    max_size=30,
)


def _block(events: list[Any], before: int = 0) -> Block:
    """The events after so many others. Columns stand in the order in which the block's own events bring them."""
    names = dict.fromkeys(name for x, _, _ in events for name in x)
    x = {name: [each.get(name) for each, _, _ in events] for name in names}
    made = block(x or {"d": [None] * len(events)}, [y for _, _, y in events], [name for _, name, _ in events])
    return dataclasses.replace(made, times=made.times + before, next=1)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(1, 8), min_size=1, max_size=4), known=st.booleans())
def test_growth_in_every_place(events: list[Any], cuts: list[int], known: bool) -> None:
    made = online.softmax(stream=streams.sea(), late=2, categories=3, every=7)
    types: dict[str, Any] = {"b": "number", "a": "word"} if known else {}

    def learnt(sizes: list[int]) -> tuple[str, str, list[str]]:
        context = Context()
        live: Any = made.open(None, None, context)
        live._learner = type(made)._learner(type(made).completed(made.own_fields()), types, "classes")
        rows: list[Any] = []
        at = turn = 0
        while at < len(events):
            size = sizes[turn % len(sizes)]
            rows += live.advance(_block(events[at : at + size], at))
            at, turn = at + size, turn + 1
        return model_digest(live.result()), repr(rows), sorted(context.warnings)

    assert learnt([1]) == learnt([10_000]) == learnt(cuts)


def test_cells_that_are_neither_words_nor_numbers_are_missing_or_words() -> None:
    columns = {"a": np.array([None, 1.0, 3.0], object), "b": np.array([None, b"x", ("u",)], object)}
    live = learner()
    live.learn(dataclasses.replace(block({"a": [1.0] * 3}, ["y", "n", "y"]), x=columns))
    assert [(each.type, each.categories) for each in live.signature.columns] == [
        ("number", ()),
        ("word", ("b'x'", "('u',)")),
    ]
