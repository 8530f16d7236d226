"""The page on streams: its examples run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest


def test_the_examples_of_the_page_on_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(Path(__file__).parents[3] / "docs" / "streams.md"), module_relative=False)
    assert failed == 0
    assert tried > 10
