"""Events as a matrix: what is made of them is what `EventRows` makes, in blocks of any size, however messy they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.online.test_learning import block

from mapsto.errors import DomainError
from mapsto.kinds import Block, EventColumn
from mapsto.nn.online.event_matrix import EventMatrix
from mapsto.nn.online.event_rows import EventRows

NUMBERS = st.sampled_from([0.5, -3.0, 2.0, np.nan, np.inf, -1e101, 1e99])
CELLS = st.sampled_from(
    [
        "",
        "red",
        "blue",
        "green",
        "7",
        "1e400",
        "nan",
        None,
        2.5,
        3,
        True,
        np.float32(0.1),
        np.int64(4),
        b"x",
        b"1",
        ("u",),
    ]
)


@st.composite
def columns(draw: Any, count: int) -> np.ndarray:
    kind = draw(st.sampled_from(["float", "object", "float32", "int", "bool", "vector"]))
    if kind == "vector":
        length = draw(st.integers(1, 2))
        flat = draw(st.lists(st.sampled_from([0.0, 1.5, np.nan]), min_size=count * length, max_size=count * length))
        return np.array(flat, np.float32).reshape(count, length)
    if kind == "object":
        made = np.empty(count, object)
        made[:] = draw(st.lists(CELLS, min_size=count, max_size=count))
        return made
    if kind in ("float", "float32"):
        with np.errstate(over="ignore"):
            return np.array(draw(st.lists(NUMBERS, min_size=count, max_size=count))).astype(kind)
    return np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))).astype(kind)


@st.composite
def blocks(draw: Any) -> Block:
    count = draw(st.integers(1, 6))
    names = draw(st.lists(st.sampled_from("abcd"), max_size=3, unique=True))
    flags = st.lists(st.sampled_from([True, True, True, False]), min_size=count, max_size=count)
    return Block(
        times=np.zeros(count),
        ids=np.array([""] * count, object),
        x={name: draw(columns(count)) for name in names},
        has_x=np.array(draw(flags)) if names else np.zeros(count, bool),
        y=np.array([""] * count, object),
        has_y=np.zeros(count, bool),
        next=None,
        broken={event: "broken" for event, whole in enumerate(draw(flags)) if not whole},
    )


def of_rows(rows: EventRows, given: Block, *, learn: bool) -> tuple[list[Any], dict[int, str]]:
    """Each event's features by input of a matrix: numbers, the words' categories, the values of vectors."""
    aside = dict(given.broken)
    found: list[Any] = [None] * len(given)
    for event, row in rows.rows(given, aside, learn=learn):
        if row is not None:
            found[event] = row
    for event, row in enumerate(found):
        if row is None:
            continue
        values: list[float] = []
        for column in rows.layout:
            there = [row[place] if place < len(row) else 0.0 for place in column.places]
            if column.type == "word":
                values.append(float(there.index(1.0)) if 1.0 in there else np.nan)
            else:
                values += there
        found[event] = values
    return found, aside


def of_matrix(matrix: EventMatrix, given: Block, *, learn: bool) -> tuple[list[Any], dict[int, str]]:
    aside = dict(given.broken)
    found: list[Any] = [None] * len(given)
    at = 0
    for part in matrix.parts(given, aside, learn=learn):
        assert part.start == at
        at = part.stop
        for event in range(part.start, part.stop):
            if given.has_x[event] and event not in aside:
                found[event] = part.x[event - part.start].tolist()
    assert at == len(given)
    return found, aside


def agree(rows: list[Any], matrix: list[Any], kinds: tuple[EventColumn, ...], widths: list[int]) -> None:
    of_numbers = [kind.type == "number" for kind, width in zip(kinds, widths, strict=True) for _ in range(width)]
    for row, line in zip(rows, matrix, strict=True):
        assert (row is None) == (line is None)
        if row is None:
            continue
        later = [np.nan] * (len(row) - len(line))  # columns that came after it
        for number, a, b in zip(of_numbers, row, [*line, *later], strict=True):
            if not (number and np.isnan(b)):  # there the rows have the mean
                np.testing.assert_equal(0.0 if np.isnan(b) and not np.isnan(a) else b, a)


@settings(max_examples=60, deadline=None)
@given(given=st.lists(blocks(), min_size=1, max_size=4), known=st.booleans(), asked=blocks())
def test_it_makes_of_events_what_rows_make(given: list[Block], known: bool, asked: Block) -> None:
    types: dict[str, Any] = {"c": "number", "b": "word"} if known else {}
    rows = EventRows(types, most_categories=3, scaled=False)
    matrix, one = (EventMatrix(types, most_categories=3) for _ in range(2))
    for each in given:
        expected, aside = of_rows(rows, each, learn=True)
        found, also = of_matrix(matrix, each, learn=True)
        assert also == aside
        assert (matrix.columns, matrix.unmet, matrix.crowded) == (rows.columns, rows.unmet, rows.crowded)
        agree(expected, found, matrix.columns, matrix.lengths())
        alone: list[Any] = []
        for event in range(len(each)):
            lines, why = of_matrix(one, each.take(event, event + 1), learn=True)
            alone += lines
            assert why.get(0) == aside.get(event)
        agree(expected, alone, one.columns, one.lengths())
        assert one.columns == rows.columns
    before = matrix.columns
    expected, aside = of_rows(rows, asked, learn=False)
    found, also = of_matrix(matrix, asked, learn=False)
    assert (also, matrix.columns) == (aside, before)
    agree(expected, found, matrix.columns, matrix.lengths())


def test_a_block_is_cut_where_a_column_comes() -> None:
    matrix = EventMatrix({"b": "number"}, most_categories=9)
    first = block({"a": [1.0, 2.0, 3.0, 4.0], "c": ["", "", "red", ""], "b": [None, None, None, 5.0]}, ["y"] * 4)
    parts = list(matrix.parts(first, {}, learn=True))
    assert [(part.start, part.stop, part.new) for part in parts] == [
        (0, 1, (False,)),
        (1, 2, ()),
        (2, 3, (True,)),
        (3, 4, (False,)),
    ]
    assert [part.x.shape[1] for part in parts] == [1, 1, 2, 3]
    assert [(column.name, column.type) for column in matrix.columns] == [
        ("a", "number"),
        ("c", "word"),
        ("b", "number"),
    ]


def test_words_beyond_the_most_share_a_number_and_more_are_told_apart_once_more_may_be() -> None:
    matrix = EventMatrix({}, most_categories=2)
    words = block({"a": ["u", "v", "w", "x", "u", ""]}, ["y"] * 6)
    codes = [part.x[:, 0].tolist() for part in matrix.parts(words, {}, learn=True)]
    np.testing.assert_equal([code for part in codes for code in part], [0, 1, 2, 2, 0, np.nan])
    assert matrix.crowded == ["a"]
    wider = EventMatrix({}, most_categories=3)
    wider.restore(matrix.columns, matrix.lengths(), [])
    (part,) = wider.parts(block({"a": ["x", "z", "u"]}, ["y"] * 3), {}, learn=True)
    assert part.x[:, 0].tolist() == [3, 2, 0]


def test_an_event_that_is_set_aside_brings_no_column() -> None:
    matrix = EventMatrix({}, most_categories=9)
    aside: dict[int, str] = {}
    (part,) = matrix.parts(block({"a": [np.inf], "b": ["red"]}, ["y"]), aside, learn=True)
    assert (part.x.shape, part.new, matrix.columns) == ((1, 0), (), ())
    assert aside == {0: "an infinite number in column 'a'"}


def test_images_are_refused_by_name() -> None:
    given = block({"a": [1.0]}, ["y"])
    images = Block(**{**given.__dict__, "x": {"pixels": np.zeros((1, 2, 2))}})
    with pytest.raises(DomainError, match=r"'pixels' holds arrays of shape \(2, 2\)"):
        list(EventMatrix({}, most_categories=9).parts(images, {}, learn=True))


@pytest.mark.parametrize("harm", [("x", 1), ("number", 0), ("number", 2), ("word", 2)])
def test_what_does_not_fit_is_not_restored(harm: tuple[Any, int]) -> None:
    with pytest.raises(ValueError, match="a column of another type, or of no inputs"):
        EventMatrix({}, most_categories=9).restore((EventColumn(name="a", type=harm[0]),), [harm[1]], [])
