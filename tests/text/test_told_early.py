"""What is wrong with a table of texts is said before an encoder is loaded, and in words that name it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mapsto.cli.adapt import texts as adapt_texts
from mapsto_runtime.errors import DataError
from mapsto_runtime.predictor import Predictor
from tests.command import mapsto
from tests.text.packages import ROWS, text_package, write_table


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*arguments: Any, **more: Any) -> None:
        pytest.fail("an encoder is loaded")

    monkeypatch.setattr(adapt_texts, "encoder_at_hand", loaded)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder that the test is in: a table, one of one class, and one without rows."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "a.csv")
    write_table(tmp_path / "one.csv", ROWS[:3])
    write_table(tmp_path / "header.csv", [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("a.csv --text txt --target intent", "there is no column 'txt'; did you mean 'text'"),
        ("a.csv --text text --target intend", "did you mean 'intent'"),
        ("a.csv --text text", "it takes the column to predict, too"),
        ("one.csv --text text --target intent", "only one class has"),
        ("header.csv --text text --target intent", "header.csv: holds no rows"),
        ("header.csv --text text --target intent --task labels", "header.csv: holds no rows"),
        ("header.csv --text text --target intent --task values", "header.csv: holds no rows"),
        ("empty.csv --text text --target intent", "give a .csv, .tsv, .jsonl or .parquet file"),
        ("a.csv --text text --target intent --limit bytes", "'bytes' is no limit"),
        ("a.csv --text text --target intent --unlabelled header.csv", "header.csv: holds no rows"),
        ("a.csv --text txt --target intent --task labels", "there is no column 'txt'"),
        ("a.csv --text text --target intent --task values", "holds words, not numbers"),
        ("a.csv --text text --target intent --task labels --out-of-scope x", "it is for classes"),
        ("a.jsonl --task tags", "there is no column 'tokens'"),
    ],
)
def test_adapt_reads_its_table_first(tables: None, tmp_path: Path, options: str, message: str) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "a.jsonl").write_text(json.dumps({"words": ["a"], "tags": ["O"]}))
    assert message in mapsto("adapt", *options.split(), code=2).err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("a.csv --text txt --target intent", "there is no column 'txt'"),
        ("header.csv --text text --target intent", "holds no rows"),
        ("one.csv --text text --target intent", "only one class has"),
    ],
)
def test_compress_reads_its_table_first(tables: None, tmp_path: Path, options: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("schema: 1\nsteps: [{networks.hf_text: {folder: no_such_encoder}}]\n")
    shown = mapsto("compress", recipe, *options.split(), "--limit", "bytes=1MB", code=2).err
    assert message in shown
    assert not (tmp_path / "runs").exists()


def test_a_text_alone_that_is_empty_is_called_something(tmp_path: Path) -> None:
    package = text_package(tmp_path)
    with pytest.raises(DataError, match="the input is empty; give a text"):
        Predictor(package).predict([""])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"one text a line, or a .csv, .tsv, .jsonl or .parquet table"):
        Predictor(package).predict([tmp_path / "empty.txt"])
