"""The table of layers against layers is shown as a heat map in a run's page."""

from __future__ import annotations

import re
from typing import Any

from mapsto.report import page as html
from mapsto.report.charts import matrix


def page(table: dict[str, Any]) -> str:
    step = {"id": "apart", "name": "evaluate.difference", "label": "apart", "report": {"tables": {"cka": table}}}
    return html.render({"schema": 1, "name": "small", "steps": [step]})


def test_shades_are_the_values() -> None:
    svg = matrix([[1.0, 0.5, -0.1]], ["<a>"], ["x", "y", "z"], row_name="student", column_name="teacher")
    assert [float(shade) for shade in re.findall(r'fill-opacity="([\d.]+)"', svg)] == [0.9, 0.45, 0.0]
    assert "student against teacher" in svg
    assert "&lt;a&gt;" in svg
    assert "<a>" not in svg


def test_a_table_of_layers_against_layers_is_drawn() -> None:
    shown = page({"columns": ["student \\ teacher", "one", "two"], "rows": [["first", 1.0, 0.25]]})
    assert shown.count('class="cell"') == 2
    assert "all of the student&#39;s against all of the teacher&#39;s" in shown


def test_other_tables_stay_tables() -> None:
    for table in (
        {"columns": ["layer", "one"], "rows": [["first", 0.5]]},
        {"columns": ["student \\ teacher", "one"], "rows": [["first", 12]]},
        {"columns": ["student \\ teacher", "one"], "rows": [["first", "text"]]},
    ):
        assert 'class="cell"' not in page(table)
