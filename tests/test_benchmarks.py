"""What benchmarks print, and the goals that they judge."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    return importlib.import_module("common")


def test_a_table_of_22_columns_shows_those_that_tell_rows_apart(
    common: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "meta_speed.json").read_text(encoding="utf-8"))["rows"]
    assert len({name for row in rows for name in row}) == 22
    columns, alike, left_out = common.columns_of(rows)
    assert {"setting", "candidate", "seconds", "tasks per second"} <= set(columns)
    assert {name for row in rows for name in row} == {*columns, *alike, *left_out}
    common.show(rows)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= common.WIDTH


def test_a_column_that_says_the_same_in_every_row_is_said_once(
    common: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    common.show([{"what": "a", "unit": "s", "value": 1.0}, {"what": "b", "unit": "s", "value": 2.0}])
    printed = capsys.readouterr().out
    assert "alike in all rows: unit s" in printed
    assert "unit" not in printed.splitlines()[1]


@pytest.mark.parametrize(
    ("goal", "measured", "met"), [("<= 1", 0.4, True), ("<= 1", 1.26, False), (">= 5", None, None)]
)
def test_a_goal_is_met_unmet_or_not_run(
    common: ModuleType, goal: str, measured: float | None, met: bool | None
) -> None:
    assert common.target("a", goal, measured)["met"] is met
