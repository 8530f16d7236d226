"""``mapsto stream`` of texts: what has learnt knows its columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import mapsto
from tests.text.packages import ROWS, write_table
from tests.text.tiny_encoder import tiny_encoder


@pytest.mark.slow
def test_a_run_answers_with_the_columns_that_it_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    write_table(tmp_path / "learnt.csv", ROWS * 3)
    encoder = tiny_encoder(tmp_path / "encoder")
    columns = ("--text", "text", "--target", "intent")
    mapsto("stream", "learnt.csv", *columns, "--encoder", encoder, "--quiet", code=0)
    named = mapsto("stream", "learnt.csv", *columns, "--from", "runs/learnt", code=0)
    known = mapsto("stream", "learnt.csv", "--from", "runs/learnt", code=0)
    assert known.out == named.out
    assert "of the 18 that have a label" in known.err
    assert mapsto("stream", "learnt.csv", "--from", "learnt", code=0).out == named.out
    (tmp_path / "questions.csv").write_text("text,note\nwhere is my card?,a\nthe pear,b\n")
    asked = mapsto("stream", "questions.csv", "--from", "runs/learnt", code=0)
    assert "2 events answered" in asked.err
    assert "label" not in asked.err
    (tmp_path / "others.csv").write_text("question,note\nwhere is my card?,a\nthe pear,b\n")
    other = mapsto("stream", "others.csv", "--from", "runs/learnt", "--text", "question", code=0)
    assert [line.split(",")[2] for line in other.out.splitlines()] == [
        line.split(",")[2] for line in asked.out.splitlines()
    ]
