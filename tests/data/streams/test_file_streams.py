"""Tables in files of all kinds, in folders that grow, and on standard input."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mapsto import streams
from mapsto.data.streams import _sources
from mapsto.data.streams._cells import seconds_of
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Block


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that wait say so sooner."""
    monkeypatch.setattr(_sources, "_IDLE_SECONDS", 0.2)


def columns(blocks: Iterator[Block]) -> dict[str, list[Any]]:
    """The values of each column, one a event."""
    found: dict[str, list[Any]] = {}
    for block in blocks:
        for name, values in (*block.x.items(), ("y", block.y)):
            found.setdefault(name, []).extend(values.tolist())
    return found


def events(blocks: Iterator[Block], most: int) -> list[str]:
    """The labels of the first events; empty blocks are passed over."""
    labels: list[str] = []
    for block in blocks:
        labels += block.y.tolist()
        if len(labels) >= most:
            break
    return labels


# ------------------------------------------------------------------------------------------------------------------- JSON


def test_objects_of_many_keys_and_kinds(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    lines = [
        '{"a": 1, "w": "u", "y": 1, "when": "1970-01-01T00:00:02Z"}',
        '{"a": true, "w": 2.0, "y": 2.0, "when": "soon"}',
        '{"a": "3", "w": null, "y": "x", "new": 5}',
        '{"a": [1], "y": true}',
        "[1, 2]",
        '{"a": "word", "w": "v"}',
        '{"a": 1e999, "y": "x", "when": 4}',
    ]
    file.write_text("\n".join(lines))
    stream = streams.jsonl(file=str(file), target="y", time="when")
    assert stream.columns() == {"a": "word", "w": "word", "new": "number"}, "one of a's values is a word"
    (block,) = stream.open()
    assert block.x["a"].tolist() == ["1", "true", "3", "", "", "word", "Infinity"]
    assert block.x["w"].tolist() == ["u", "2", "", "", "", "v", ""]
    assert block.y.tolist() == ["1", "2", "x", "true", "", "", "x"]
    assert block.has_y.tolist() == [True, True, True, True, False, False, True]
    assert block.broken == {3: "'a' holds a list", 4: "no JSON object"}
    assert block.times.tolist() == pytest.approx([2.0, *[math.nan] * 5, 4.0], nan_ok=True)


def test_a_word_in_a_key_of_numbers_is_given_on_and_one_that_appears_is_new(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"a": 1, "y": 0.5}\n' * 100 + '{"a": "odd", "b": "red", "y": "2"}\n{"a": "7", "y": "far"}\n')
    stream = streams.jsonl(file=str(file), target="y", task="values")
    assert stream.columns() == {"a": "number"}
    blocks = list(stream.open(size=100))
    assert [*blocks[0].x] == ["a"]
    assert blocks[1].x["a"].tolist() == ["odd", 7.0]
    assert blocks[1].x["b"].tolist() == ["red", ""]
    assert blocks[1].y.tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert blocks[1].broken == {1: "a label that is no number"}


def test_objects_within_objects_have_dotted_names_and_lists_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "orders.jsonl"
    lines = ['{"who": {"age": 3, "home": {"town": "Ulm"}}, "items": [{"a": 1}], "is": {"back": true}}'] * 100
    lines += ['{"who": {"age": null}, "items": [], "more": [1], "new": {"w": "x"}, "is": {"back": [1]}}']
    lines += ['{"who": 3, "is": {"back": false}}', '{"who": {"age": [4]}, "is": {}}']
    lines += ['{"who": ' + "[" * 100_000]
    file.write_text("\n".join(lines))
    stream = streams.jsonl(file=str(file), target="is.back")
    assert stream.columns() == {"who.age": "number", "who.home.town": "word"}
    with caplog.at_level(logging.WARNING, "mapsto"):
        first, second = stream.open(size=100)
    assert first.x["who.age"].tolist() == [3] * 100
    assert set(first.y.tolist()) == {"true"}
    assert second.x["who.home.town"].tolist() == ["", "", "", ""]
    assert second.x["new.w"].tolist() == ["x", "", "", ""]
    assert "items" not in second.x
    assert "more" not in second.x
    assert second.broken == {0: "a label that is a list", 2: "'who.age' holds a list", 3: "no JSON"}
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["items", "more"]


def test_a_followed_file_of_objects_that_waits_gives_blocks_with_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"x": 1, "y": "a"}\n')
    monkeypatch.setattr(_sources, "_IDLE_SECONDS", 0.1)
    blocks = streams.jsonl(file=str(file), target="y", follow=True).open()
    assert len(next(blocks)) == 1
    empty = next(blocks)
    assert (len(empty), [*empty.x]) == (0, ["x"])


def test_a_followed_file_of_objects_waits_for_the_end_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"a": 1, "y": "u"}\n{"a": 2, ')
    blocks = streams.jsonl(file=str(file), target="y", follow=True).open()
    assert next(blocks).y.tolist() == ["u"]
    with file.open("a") as more:
        more.write('"y": "v"}\n')
    assert next(blocks).y.tolist() == ["v"]
    file.write_text("")
    with pytest.raises(DataError, match="shorter"):
        next(blocks)


# ---------------------------------------------------------------------------------------------------------------- Parquet


def test_types_of_a_parquet_file_are_those_of_its_schema(tmp_path: Path) -> None:
    from datetime import date, datetime
    from decimal import Decimal

    file = tmp_path / "events.parquet"
    table = pa.table(
        {
            "whole": pa.array([1, None, 3], pa.int64()),
            "truth": [True, False, None],
            "money": [Decimal("1.5"), Decimal("2.5"), None],
            "day": [date(1970, 1, 2), None, date(1970, 1, 1)],
            "colour": pa.array(["red", None, "007"]).dictionary_encode(),
            "list": [[1], [2], None],
            "when": pa.array([datetime(1970, 1, 1, 0, 0, 1), None, datetime(1970, 1, 1, 0, 0, 2, 500000)]),
            "y": pa.array([2.0, 0.5, None]),
        }
    )
    pyarrow.parquet.write_table(table, file)
    stream = streams.parquet(file=str(file), target="y", time="when")
    (block,) = stream.open()
    assert stream.columns() == {**dict.fromkeys(("whole", "truth", "money", "day"), "number"), "colour": "word"}
    nan = math.nan
    for name, values in {
        "whole": [1, nan, 3],
        "truth": [1, 0, nan],
        "money": [1.5, 2.5, nan],
        "day": [86400, nan, 0],
    }.items():
        assert block.x[name].tolist() == pytest.approx(values, nan_ok=True), name
    assert block.x["colour"].tolist() == ["red", "", "007"]
    assert block.times.tolist() == pytest.approx([1, nan, 2.5], nan_ok=True)
    assert block.y.tolist() == ["2", "0.5", ""]
    assert block.has_y.tolist() == [True, True, False]
    numbers = next(streams.parquet(file=str(file), target="y", task="values").open())
    assert numbers.y.tolist() == pytest.approx([2.0, 0.5, nan], nan_ok=True)
    with pytest.raises(SpecError, match="'list' holds list"):
        streams.parquet(file=str(file), target="y", features=("list",)).columns()


def test_only_the_row_groups_from_a_position_on_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "events.parquet"
    table = pa.table({"a": list(range(100)), "y": ["u"] * 100})
    pyarrow.parquet.write_table(table, file, row_group_size=10)
    read: list[int] = []
    iter_batches = pyarrow.parquet.ParquetFile.iter_batches

    def counting(self: Any, size: int, *, row_groups: list[int], columns: list[str]) -> Any:
        read.extend(row_groups)
        return iter_batches(self, size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", counting)
    stream = streams.parquet(file=str(file), target="y")
    assert columns(stream.open(75, size=3))["a"] == list(range(75, 100))
    assert read == [7, 8, 9]
    assert list(stream.open(100)) == []
    with pytest.raises(DataError, match="another file"):
        next(stream.open(101))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        streams.parquet(file=str(file), target="y").columns()


# ------------------------------------------------------------------------------------------------------------------ folder


def settled(file: Path) -> None:
    """As if it had been written long ago."""
    os.utime(file, (0, 0))


def test_a_folder_of_tables_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"y": ["c"], "b": [3.0]}), tmp_path / "3.parquet")
    (tmp_path / "1.csv").write_text("a,b,y\n1,1,a\n2,2,a\n")
    (tmp_path / "2.jsonl").write_text('{"b": 9, "new": "w", "a": 5, "y": "b"}\n')
    (tmp_path / ".4.csv").write_text("no table")
    (tmp_path / "notes.txt").write_text("no table")
    stream = streams.folder(folder=str(tmp_path), target="y")
    assert stream.columns() == {"a": "number", "b": "number"}
    blocks = list(stream.open(size=1))
    assert [block.next for block in blocks] == [["1.csv", 12], ["1.csv", None], ["2.jsonl", None], ["3.parquet", None]]
    assert [block.y.tolist() for block in blocks] == [["a"], ["a"], ["b"], ["c"]]
    assert blocks[2].x["new"].tolist() == ["w"]
    assert np.isnan(blocks[3].x["a"][0])
    assert stream.fingerprint() == stream.fingerprint()
    (tmp_path / "1.csv").unlink()
    assert events(stream.open(["1.csv", None]), 2) == ["b", "c"], "a file that was read to its end is not needed"
    with pytest.raises(DataError, match="was not read to its end"):
        next(stream.open(["1.csv", 12]))


def test_a_folder_that_grows_gives_whole_files_only_and_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1.csv").write_text("a,y\n1,a\n")
    settled(tmp_path / "1.csv")
    stream = streams.folder(folder=str(tmp_path), target="y", follow=True)
    blocks = stream.open()
    assert next(blocks).y.tolist() == ["a"]
    whole = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"a": [2.0], "y": ["b"]}), whole)
    content = whole.getvalue().to_pybytes()
    (tmp_path / "2.parquet").write_bytes(content[:-4])
    settled(tmp_path / "2.parquet")
    (tmp_path / "3.csv").write_text("a,y\n3,c\n")
    settled(tmp_path / "3.csv")
    assert len(next(blocks)) == 0, "a table of Parquet without its end is still being written"
    (tmp_path / "2.parquet").write_bytes(content)
    settled(tmp_path / "2.parquet")
    (tmp_path / "0.csv").write_text("a,y\n0,z\n")
    with caplog.at_level(logging.WARNING, "mapsto"):
        assert events(blocks, 2) == ["b", "c"]
        (tmp_path / "4.csv").write_text("a,y\n4,d\n")
        began = time.time()
        assert events(blocks, 1) == ["d"]
    assert time.time() - began > 0.5, "it was not read while it may have been written"
    assert [each.message.partition(" came")[0] for each in caplog.records] == ["a file"]


def test_images_of_a_folder_come_in_the_order_of_their_own_names(tmp_path: Path) -> None:
    from PIL import Image

    for place, name in enumerate(["dog/1.png", "cat/2.png", "dog/3.png", "4.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), place).save(tmp_path / name)
    (tmp_path / "cat" / "5.png").write_bytes(b"no image")
    stream = streams.folder(folder=str(tmp_path), size=4, channels=1)
    blocks = list(stream.open(size=3))
    assert blocks[0].x["image"].shape == (3, 1, 4, 4)
    assert blocks[0].x["image"].max(axis=(1, 2, 3)).tolist() == [0, 1, 2]
    assert blocks[0].y.tolist() == ["dog", "cat", "dog"]
    assert blocks[0].next == ["dog/3.png", None]
    (rest,) = stream.open(blocks[0].next)
    assert rest.has_y.tolist() == [False, True]
    assert [*rest.broken] == [1]


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        streams.folder(folder=str(tmp_path), target="y").columns()
    with pytest.raises(SpecError, match="are of tables"):
        list(streams.folder(folder=str(tmp_path), id="n").open())
    (tmp_path / "1.csv").write_text("a,y\n1,u\n")
    (tmp_path / "2.csv").write_text("a,z\n1,u\n")
    with pytest.raises(SpecError, match=r"2\.csv: there is no column 'y'"):
        list(streams.folder(folder=str(tmp_path), target="y").open())


# ----------------------------------------------------------------------------------------------------------- standard input


class Pipe:
    """Standard input that a test writes to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out, self._into = os.pipe()
        self._reads = os.fdopen(out, "rb")
        monkeypatch.setattr("sys.stdin", self._reads)
        _sources._standard_input.cache_clear()

    def write(self, text: str) -> None:
        os.write(self._into, text.encode())

    def close(self) -> None:
        os.close(self._into)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    return Pipe(monkeypatch)


def test_a_csv_on_standard_input_is_counted_and_its_last_line_may_end_with_it(pipe: Pipe) -> None:
    stream = streams.csv(file="-", target="y")
    pipe.write("a,y\n" + "1,u\n" * 200 + "2,v\n3,")
    assert not stream.bounded
    blocks = stream.open(size=128)
    assert stream.columns() == {"a": "number"}
    assert [next(blocks).next, next(blocks).next] == [{"taken": 128}, {"taken": 201}]
    pipe.write("w")
    assert len(next(blocks)) == 0, "a line without an end may go on"
    pipe.close()
    block = next(blocks)
    assert (block.x["a"].tolist(), block.y.tolist(), block.next) == ([3.0], ["w"], {"taken": 202})
    assert list(blocks) == []


def test_standard_input_that_goes_on_counts_what_was_taken_and_skips_nothing(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    pipe.write('{"a": 1, "y": "u"}\n{"a": 2, "y": "v"}\n')
    pipe.close()
    with caplog.at_level(logging.WARNING, "mapsto"):
        blocks = streams.jsonl(file="-", target="y").open({"taken": 500}, size=1)
        assert [(block.y.tolist(), block.next) for block in blocks] == [
            (["u"], {"taken": 501}),
            (["v"], {"taken": 502}),
        ]
    assert "cannot be read again" in caplog.text


def test_a_quoted_cell_and_a_long_line_may_come_in_parts(pipe: Pipe) -> None:
    long = "x" * (2 << 20)

    def writes() -> None:
        pipe.write('a,y\n"two\n')
        time.sleep(0.05)
        pipe.write(f'lines",u\n{long}')
        pipe.write(",v\nend,w\n")
        pipe.close()

    thread = threading.Thread(target=writes)
    thread.start()
    found = [block for block in streams.csv(file="-", target="y", features=("a",)).open(size=1) if len(block)]
    thread.join()
    assert [block.x["a"][0] for block in found] == ["two\nlines", "", "end"]
    assert [[*block.broken] for block in found] == [[], [0], []]


# -------------------------------------------------------------------------------------------------------- what is told once


def test_a_quote_that_stays_open_in_a_followed_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "events.csv"
    file.write_text('a,y\n1,u\n"2,v\n3,w\n')
    blocks = streams.csv(file=str(file), target="y", follow=True).open()
    next(blocks)
    with caplog.at_level(logging.WARNING, "mapsto"):
        next(blocks)
        next(blocks)
    assert [each.message.partition(": ")[2] for each in caplog.records] == [
        "waits for the end of a quoted cell in the line at byte 8"
    ]


def test_what_is_no_time_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "events.csv"
    file.write_text("a,when,y\n1,3,u\n2,,u\n3,noon,u\n4,dusk,u\n5,2026-01-01T00:00:00,u\n")
    with caplog.at_level(logging.WARNING, "mapsto"):
        times = [
            time for block in streams.csv(file=str(file), target="y", time="when").open(size=1) for time in block.times
        ]
    assert times == pytest.approx([3, math.nan, math.nan, math.nan, 1767225600], nan_ok=True)
    assert [each.message.partition(": ")[2] for each in caplog.records] == [
        "'noon' in column 'when' is no time, such as 2026-12-31 08:00 or seconds of the epoch; such events have none"
    ]


def test_a_line_of_objects_is_json(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps({"a": 1, "y": "u"}) + "\n" + '{"a": ' + "[" * 2000 + "\n" + "x" * (2 << 20) + "\n")
    (block,) = streams.jsonl(file=str(file), target="y").open()
    assert block.broken == {1: "no JSON", 2: "a line longer than 1 MiB"}


def test_json_with_half_a_surrogate_pair_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [
        r'{"a": 1, "w": "\ud83d\ude00", "y": "x"}',
        r'{"a": 1, "w": "\ud83d", "y": "x"}',
        r'{"\uDE00": 1, "y": "x"}',
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (block,) = streams.jsonl(file=str(file), target="y").open()
    assert block.x["w"].tolist()[0] == "\U0001f600"
    assert list(block.x) == ["a", "w"]
    assert block.broken == {1: "a text that is no Unicode", 2: "a text that is no Unicode"}


def test_labels_may_all_come_after_the_lines_that_tell_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    questions = [json.dumps({"n": n, "a": n}) for n in range(120)]
    file.write_text("\n".join([*questions, json.dumps({"n": 0, "y": "x"})]) + "\n", encoding="utf-8")
    blocks = list(streams.jsonl(file=str(file), target="y", id="n").open())
    assert sum(int(block.has_y.sum()) for block in blocks) == 1
    with pytest.raises(SpecError, match="no column 'y'"):
        next(streams.jsonl(file=str(file), target="y").open())


@pytest.mark.parametrize("value", [[1], b"x", {"k": 1}])
def test_a_parquet_target_of_neither_numbers_nor_words_is_refused(tmp_path: Path, value: object) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"a": [1, 2], "y": [value, value]}), file)
    for role in ("target", "id", "time"):
        fields: dict[str, Any] = {role: "y"}
        with pytest.raises(SpecError, match=f"column 'y', the {role}, holds .* neither numbers nor words"):
            next(streams.parquet(file=str(file), **fields).open())


# ------------------------------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2.1.1970", 86400.0),
        ("02.01.1970 8:05", 86400.0 + 8 * 3600 + 300),
        ("1970/1/2 08:00:01.5", 86400.0 + 8 * 3600 + 1.5),
        ("1970.1.2", 86400.0),
        ("2.1.1970 8:00+01:00", 86400.0 + 7 * 3600),
        ("31.02.1970", None),
        ("1/2/1970", None),
        ("1.2.3", None),
    ],
)
def test_dates_of_which_the_day_is_certain_are_times(cell: str, seconds: float | None) -> None:
    assert seconds_of(cell) == seconds


def test_a_later_file_of_labels_needs_no_column_of_times(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("n,when,a,y\n1,5,0.5,\n2,6,1.5,\n")
    (tmp_path / "2.csv").write_text("n,y\n1,u\n")
    (tmp_path / "3.jsonl").write_text('{"n": 2, "y": "v"}\n')
    stream = streams.folder(folder=str(tmp_path), target="y", id="n", time="when")
    blocks = list(stream.open())
    assert blocks[0].times.tolist() == [5.0, 6.0]
    assert all(math.isnan(time) for block in blocks[1:] for time in block.times)
    assert [block.has_x.tolist() for block in blocks] == [[True, True], [False], [False]]
    assert [block.y.tolist() for block in blocks[1:]] == [["u"], ["v"]]
    with pytest.raises(SpecError, match="no column 'whne'"):
        streams.folder(folder=str(tmp_path), target="y", id="n", time="whne").columns()


def test_a_header_that_lacks_a_column_says_what_the_file_may_be(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_bytes("金额,结果\n1,完成\n".encode("gbk"))
    with pytest.raises(SpecError, match="not in UTF-8"):
        streams.csv(file=str(file), target="结果").columns()
    file.write_text('{"a": 1, "y": 2}\n')
    with pytest.raises(SpecError, match="look like JSON"):
        streams.csv(file=str(file), target="y").columns()
