"""Events in CSV files as people have them: decimal commas, stray quotes, gaps, files that are changed while they are followed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mapsto import streams
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block


def csv(folder: Path, content: str | bytes, **fields: Any) -> Any:
    file = folder / "events.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return streams.csv(file=str(file), **{"target": "y", **fields})


def first(stream: Any, size: int = 256) -> Block:
    return next(stream.open(size=size))


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (("1,5", "3", "1.234,5"), [1.5, 3.0, 1234.5]),
        (("1,500", "3,125", "NA"), [1.5, 3.125, math.nan]),
        (("1,500.5", "3", "?"), [1500.5, 3.0, math.nan]),
    ],
)
def test_commas_in_numbers_are_those_of_the_table(tmp_path: Path, rows: tuple[str, ...], values: list[float]) -> None:
    stream = csv(tmp_path, "a;y\n" + "".join(f"{cell};u\n" for cell in rows))
    assert first(stream).x["a"].tolist() == pytest.approx(values, nan_ok=True)


def test_codes_and_numbers_with_underscores_are_words(tmp_path: Path) -> None:
    stream = csv(tmp_path, "zip,part,y\n01234,1_000,u\n12345,1_001,v\n")
    assert stream.columns() == {"zip": "word", "part": "word"}
    assert first(stream).x["zip"].tolist() == ["01234", "12345"]


def test_an_underscore_in_a_column_of_numbers_is_no_number(tmp_path: Path) -> None:
    block = first(csv(tmp_path, "a,y\n" + "1,u\n" * 100 + "1_000,u\n2,u\n"))
    assert block.x["a"].tolist()[-2:] == ["1_000", 2.0]


@pytest.mark.parametrize("size", [1, 2, 256])
def test_only_a_quote_at_the_beginning_of_a_cell_opens_one(tmp_path: Path, size: int) -> None:
    lines = ['1,5" pipe,u', '2, "a, b",u', '3,"two\nlines",v', '4,"say ""x""",u', '5,"a"b",v', "6,7,v"]
    blocks = list(csv(tmp_path, "a,b,y\n" + "\n".join(lines) + "\n").open(size=size))
    events = [(b.x["b"][event], b.y[event]) for b in blocks for event in range(len(b)) if not b.broken]
    assert events == [('5" pipe', "u"), ("a, b", "u"), ("two\nlines", "v"), ('say "x"', "u"), ('ab"', "v"), ("7", "v")]


def test_a_line_that_cannot_be_read_is_set_aside_and_no_other(tmp_path: Path) -> None:
    block = first(csv(tmp_path, b'a,b,y\n1,x,u\n2,p\rq,v\n3,\0,u\n4,"left open,v\n5,z,u\n'))
    assert sorted(block.broken) == [1, 2, 3]
    assert block.x["a"].tolist()[::4] == [1.0, 5.0]


def test_a_header_may_break_a_line_follow_blank_ones_and_say_its_separator(tmp_path: Path) -> None:
    assert first(csv(tmp_path, '\n"width\nin m",y\n1,u\n')).x["width\nin m"].tolist() == [1.0]
    assert first(csv(tmp_path, "sep=;\r\na;y\r\n1,5;u\r\n")).x["a"].tolist() == [1.5]


def test_cells_that_hold_nothing_are_no_labels_and_no_features(tmp_path: Path) -> None:
    block = first(csv(tmp_path, "n,a,b,y\n1,1,x,NA\n1,NA,,yes\n2,NA,,null\n3,2,y,NaN\n", id="n"))
    assert block.has_y.tolist() == [False, True, False, True]
    assert block.has_x.tolist() == [True, False, True, True]
    assert block.y.tolist() == ["", "yes", "", "NaN"]


@pytest.mark.parametrize(("value", "kind"), [("red", "word"), ("2.5", "number")])
def test_a_column_that_begins_empty_is_what_its_first_value_is(tmp_path: Path, value: str, kind: str) -> None:
    from mapsto import online

    stream = csv(tmp_path, "a,b,y\n" + "1,,u\n2,,v\n" * 60 + f"1,{value},u\n2,,v\n")
    assert stream.columns() == {"a": "number"}
    model = online.softmax(stream=stream)(None)
    assert [column.type for column in model.signature.columns] == ["number", kind]
    assert model.values["aside"] == {}


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ("a,y\r1,u\r", {}, "carriage return"),
        ("a,a,y\n1,2,u\n", {}, "2 columns are named 'a'"),
        ("a,y\n1,u\n", {"id": "y"}, "column 'y' is the target, and id too"),
        ("a,y\n1,u\n", {"features": ("a", "y")}, "one of features too"),
        ("a,b,y\n1,2,u\n", {"features": ("a", "a")}, "twice"),
        ("a;y\n1;u\n", {"separator": ","}, "set separator"),
        ("a,y", {"follow": True}, "has no header yet"),
        ("a,y\n1,u\n".encode("utf-16"), {}, "save it as CSV in UTF-8"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: str | bytes, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises((DataError, SpecError), match=message):
        csv(tmp_path, content, **fields).columns()


def test_no_features_at_all_are_refused() -> None:
    with pytest.raises(SpecError, match="features"):
        streams.csv(file="events.csv", target="y", features=())


def followed(folder: Path, content: str) -> tuple[Path, Iterator[Block]]:
    blocks = csv(folder, content, follow=True).open()
    assert len(next(blocks)) == 1
    return folder / "events.csv", blocks


def test_a_followed_file_waits_for_the_end_of_a_quoted_cell(tmp_path: Path) -> None:
    file, blocks = followed(tmp_path, 'a,b,y\n1,x,u\n2,"two\n')
    with file.open("a") as more:
        more.write('lines",v\n')
    block = next(blocks)
    assert (block.x["b"].tolist(), block.broken) == (["two\nlines"], {})


@pytest.mark.parametrize("how", ["shorter", "removed", "replaced"])
def test_a_followed_file_is_only_appended_to(tmp_path: Path, how: str) -> None:
    file, blocks = followed(tmp_path, "a,y\n1,u\n")
    if how == "shorter":
        file.write_text("a,y\n")
    elif how == "removed":
        file.unlink()
    else:
        other = tmp_path / "other.csv"
        other.write_text("a,y\n1,u\n2,v\n")
        other.replace(file)
    with pytest.raises(DataError, match=how):
        next(blocks)


def test_a_file_that_is_gone_when_it_is_opened_cannot_be_read(tmp_path: Path) -> None:
    stream = csv(tmp_path, "a,y\n1,u\n")
    assert stream.columns() == {"a": "number"}
    (tmp_path / "events.csv").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        first(stream)
