"""What the end of a run says on a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mapsto.cli import progress
from mapsto.kinds import Metric
from mapsto.report.build import compare, summary
from mapsto.report.page import render
from mapsto.run.result import StepResult


def outcome(met: list[bool | None], skipped: dict[str, str] | None = None, columns: int = 1) -> dict[str, Any]:
    names = [f"figure_of_some_length_{k} accuracy" for k in range(columns)]
    stages = {"teacher": "meta.protonet", "pruned": "prune.taylor", "int8": "quantize.static"}
    return {
        "name": "demo",
        "title": "a title",
        "wall_s": 1.0,
        "summary": {
            "columns": ["stage", *names],
            "units": dict.fromkeys(names, "%"),
            "rows": [[stage, *({"value": 90.0, "ci95": 1.0} for _ in names)] for stage in stages],
        },
        "steps": [{"path": stage, "name": name, "of": None} for stage, name in stages.items()],
        "targets": [
            {"what": f"what {k}", "goal": "<= 1", "measured": None if each is None else 1.26, "ci95": None, "met": each}
            for k, each in enumerate(met)
        ],
        "skipped": skipped or {},
    }


@pytest.mark.parametrize("columns", [1, 12], ids=["room", "no room"])
def test_each_row_is_explained_in_five_words_at_most(
    columns: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.print_outcome(outcome([True], columns=columns), tmp_path)
    printed = capsys.readouterr().out
    for meaning in progress.meanings_of(outcome([])["steps"]).values():
        assert 0 < len(meaning.split()) <= 5
        assert meaning in printed


def test_the_end_says_what_the_result_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress.print_outcome(outcome([True, False, None, None]), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "1 of 2 targets met." in lines
    assert "Not met: what 1 (1.26, goal <= 1)." in lines
    assert "not measured in this run: what 2; what 3" in lines
    progress.print_outcome(outcome([True, True]), tmp_path)
    assert "All 2 targets that were measured are met." in capsys.readouterr().out
    progress.print_outcome(outcome([None]), tmp_path)
    assert "met." not in capsys.readouterr().out


def test_what_was_not_run_takes_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = "there is no Omniglot"
    progress.print_outcome(outcome([True], dict.fromkeys(("teacher.omniglot", "int8.omniglot"), reason)), tmp_path)
    assert [line for line in capsys.readouterr().out.splitlines() if "not run" in line] == [
        f"not run: teacher.omniglot, int8.omniglot ({reason})"
    ]


NEAR = {"value": 99.5, "ci95": 1.25}
ENDS = {"value": 100.0, "ci95": 1.84, "low": 96.3, "high": 100.0}


def beyond(text: str) -> list[str]:
    """The intervals in a text that pass 100."""
    reach = [(found[0], float(found[1]) + float(found[2])) for found in re.finditer(r"([\d.]+)\s*±\s*([\d.]+)", text)]
    reach += [(found[0], float(found[1])) for found in re.finditer(r"to ([\d.]+)\)", text)]
    return [shown for shown, end in reach if end > 100]


@pytest.mark.parametrize("cell", [NEAR, ENDS], ids=["half-width", "both ends"])
def test_no_interval_of_an_accuracy_passes_100(
    cell: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beyond("99.50 ± 1.25") == ["99.50 ± 1.25"]
    given = outcome([True])
    given["summary"]["rows"] = [["teacher", cell], ["int8", {"value": 90.0, "ci95": 1.0}]]
    given["summary"]["columns"][1] = "test accuracy"
    given["summary"] |= {"units": {"test accuracy": "%", "bytes": "B"}, "columns": ["stage", "bytes", "test accuracy"]}
    given["summary"]["rows"] = [
        [stage, {"value": 10.0 * k, "ci95": None}, each] for k, (stage, each) in enumerate(given["summary"]["rows"], 1)
    ]
    given["targets"] = [{"what": "right", "goal": ">= 90", "measured": cell["value"], "unit": "%", "met": True, **cell}]
    progress.print_outcome(given, tmp_path)
    metric: dict[str, Any] = {"unit": "%", "measured": False, "n": 50, **cell}
    given["steps"][0] |= {
        "id": "0",
        "report": {"metrics": {"accuracy": metric}, "tables": {}, "series": {}, "pictures": {}},
    }
    progress.print_comparison(compare(given | {"steps": given["steps"][:1]}, {"steps": given["steps"][:1]}), ["a", "b"])
    printed = capsys.readouterr().out
    assert printed.count("to 100)") == 4, "the stages, the targets, and both sides of a comparison"
    page = re.sub(
        r"<[^>]*>",
        " ",
        re.sub(r"(?s)<(script|style).*?</\1>", "", render({"schema": 1, **given, "steps": given["steps"][:1]})),
    )
    assert "to 100)" in page
    assert beyond(printed + page + str(Metric(**metric))) == []
    assert "90.00 ± 1" in printed, "where it lies evenly around the value, the half-width is enough"


def test_what_many_steps_say_alike_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress() as screen:
        for number in range(6):
            step = StepResult(id=number, name="prune.magnitude", label=None, branch=(f"fold_{number}",))
            screen.noted(step, f"fell to {number} %")
            screen.warned(step, "no data")
            screen.note("left whole: head")
    lines = " ".join(capsys.readouterr().err.split())
    assert lines.count("fell to") == 4, "three of them, and whose the others are"
    assert lines.count("warning") == 1
    assert lines.count("left whole") == 1
    named = ", ".join(f"prune.magnitude (of fold_{number})" for number in (3, 4, 5))
    assert f"said again by {named}: fell to 0 %" in lines
    others = ", ".join(f"prune.magnitude (of fold_{number})" for number in (1, 2, 3))
    assert f"said again by {others} and 2 more: no data" in lines


def test_a_mapping_that_does_otherwise_than_its_family_says_what_it_does() -> None:
    steps = [
        {"path": name, "name": name, "of": None} for name in ("choose.best", "choose.ensemble", "train.adversarial")
    ]
    assert list(progress.meanings_of(steps).values()) == [
        "the branch that was chosen",
        "all branches as one network",
        "trained against attacks",
    ]


def test_attacks_are_summed_up_by_what_is_right_under_them() -> None:
    metrics = {name: {"value": value, "unit": "%"} for name, value in (("accuracy", 90.0), ("worst", 40.0))}
    found = summary([{"path": "net.attacks", "of": "s", "report": {"metrics": metrics, "tables": {}}}])
    assert found["columns"] == ["stage", "attacks worst"]
    assert found["rows"] == [["net", {"value": 40.0, "ci95": None}]]
