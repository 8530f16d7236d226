"""``mapsto stream`` over a text: learnt byte by byte, read, gone on with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.command import mapsto

RHYME = "Row, row, row your boat, gently down the stream.\n"
SMALL = ("--set", "hidden=16", "--set", "table_bits=12", "--set", "memory=20000")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    (tmp_path / "book.txt").write_text(RHYME * 60, encoding="utf-8")


def learn(*words: object, code: int = 0) -> Any:
    return mapsto("stream", *words, "--learner", "online.language", *SMALL, code=code)


def test_a_text_needs_no_target_and_its_report_shows_bits(tmp_path: Path) -> None:
    said = learn("book.txt", "--publish-every", 1000)
    assert "bits_per_byte" in said.out
    assert "mapsto stream --from runs/book --continue" in said.out
    page = (tmp_path / "runs" / "book" / "report.html").read_text(encoding="utf-8")
    for shown in ("bits per byte of the last 10,000 bytes", "n-gram alone", "network alone", "order 0", "Whose answer"):
        assert shown in page, shown
    account = json.loads((tmp_path / "runs" / "book" / "report.json").read_text("utf-8"))["steps"][0]["account"]
    assert account["labels"] == len(RHYME) * 60
    assert account["figures"]["bits_per_byte"] < 1.5 < account["baselines"]["order 0"] < account["baselines"]["8 bits"]


def test_it_goes_on_with_a_text_by_temperature_and_seed() -> None:
    learn("book.txt", "--publish-every", 1000)
    said = mapsto("stream", "--from", "runs/book", "--continue", "gently", "--length", 17, "--temperature", 0, code=0)
    assert said.out == "gently down the stream.\n"
    early = mapsto("stream", "--from", "runs/book@1500", "--continue", "Row", "--seed", 3, "--json", code=0)
    told = json.loads(early.out)
    assert told["beginning"] == "Row"
    assert len(told["continuation"]) == 400


def test_another_text_is_read_and_nothing_learnt(tmp_path: Path) -> None:
    learn("book.txt")
    (tmp_path / "other.txt").write_text(RHYME * 2, encoding="utf-8")
    words = ("stream", "other.txt", "--from", "runs/book")
    first, again = (mapsto(*words, code=0).err for _ in range(2))
    assert first == again
    assert "98 bytes answered" in first
    assert "bits a byte" in first
    mapsto(*words, "--predictions", "answers.csv", code=0)
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows[:4]] == ["R", "o", "w", ","]
    assert sum(row["answer"] == row["label"] for row in rows) > 90


def test_what_grew_is_learnt_on(tmp_path: Path) -> None:
    first = learn("book.txt", "--json")
    with (tmp_path / "book.txt").open("a", encoding="utf-8") as file:
        file.write(RHYME * 10)
    second = learn("book.txt", "--json")
    events = [json.loads(said.out.splitlines()[-1])["summary"]["events"] for said in (first, second)]
    assert events == [60 * len(RHYME), 70 * len(RHYME)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("book.txt", "--learner", "online.language", "--target", "x"), "is for tables"),
        (("book.txt", "--format", "bytes", "--time", "x"), "is for tables"),
        (("book.txt", "--learner", "online.language", "--continue", "x"), "give it with --from"),
        (("none.txt", "--learner", "online.language"), "the text is missing"),
        (("book.txt", "--learner", "online.softmax", "--format", "bytes", "--set", "hidden=3"), "hidden"),
        (("book.txt", "--format", "csv"), "needs the column"),
    ],
)
def test_mistakes_are_told(words: tuple[str, ...], why: str) -> None:
    assert why in mapsto("stream", *words, code=2).err


def test_what_has_learnt_no_text_cannot_go_on_with_one(tmp_path: Path) -> None:
    rows = [f"{n % 7},{'yes' if n % 7 > 3 else 'no'}" for n in range(100)]
    (tmp_path / "table.csv").write_text("\n".join(["x,y", *rows]) + "\n", encoding="utf-8")
    mapsto("stream", "table.csv", "--target", "y", "--learner", "online.softmax", code=0)
    assert "has learnt no text" in mapsto("stream", "--from", "runs/table", "--continue", "x", code=2).err


def test_the_worst_stretches_show_the_text_before(tmp_path: Path) -> None:
    learn("book.txt", "--json")
    account = json.loads((tmp_path / "runs" / "book" / "report.json").read_text("utf-8"))["steps"][0]["account"]
    (worst,) = [each for each in account["stretches"] if each["from"] == 1]
    for example in worst["examples"]:
        at = example["event"] - 1
        assert (RHYME * 5)[max(0, at - 24) : at].replace("\n", " ").strip() in example["values"]["after"].replace(
            "\\n", " "
        )


def test_a_text_is_learnt_as_one_by_default_and_read_as_bytes_alone() -> None:
    said = mapsto("stream", "book.txt", *SMALL, code=0)
    assert "learnt as a text, byte by byte, by online.language" in said.err
    assert "is for tables" in mapsto("stream", "book.txt", "--from", "runs/book", "--top", 3, code=2).err
    assert "reads bytes" in mapsto("stream", "book.txt", "--from", "runs/book", "--format", "csv", code=2).err
    Path("package.yaml").write_text(
        "schema: 1\nsteps:\n  - online.language: {stream: {bytes: {files: [book.txt]}}, hidden: 16, table_bits: 12, memory: 20000}\n"
        "  - export.mapsto: {}\n",
        encoding="utf-8",
    )
    assert "online.language is not packaged" in mapsto("run", "package.yaml", code=2).err


def test_what_is_written_on_ends_lines_as_the_text_and_breaks_no_character(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes("a\tü\r\n".encode() * 300)
    learn("book.txt")
    said = mapsto("stream", "--from", "runs/book", "--continue", "a", "--length", 8, "--temperature", 0, code=0)
    assert said.out == "a\tü\r\na\t\n"


def test_a_model_of_no_byte_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"")
    assert "--continue" not in learn("book.txt").out
    assert "has learnt no byte yet" in mapsto("stream", "--from", "runs/book", "--continue", "a", code=2).err
