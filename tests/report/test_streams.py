"""The page of a stream: figures over time with what happened, members' shares, recall, worst stretches, cost, what was set aside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mapsto.recipe.reader import parse_recipe
from mapsto.report import page
from mapsto.report.build import build, combine
from mapsto.report.streams import beaten_by, stream_part
from mapsto.report.timelines import Curve, Mark, shares, timeline
from mapsto.run.executor import execute


def step(**more: Any) -> dict[str, Any]:
    """A step as a report has it."""
    account = {
        "task": "classes",
        "events": 3000,
        "labels": 2900,
        "main": "accuracy",
        "better": 1,
        "figures": {"accuracy": 80.0, "window_accuracy": 85.5, "kappa": 0.5},
        "baselines": {"no change": 50.0, "majority": 60.0},
        "classes": [
            {"class": "yes", "labels": 2000, "recall": 90.0, "first": 0},
            {"class": "<no>", "labels": 900, "recall": None, "first": 1234},
        ],
        "shares": {"knn": 1.0},
        "importance": [["width", 0.75], ["colour", 0.25]],
        "drifts": [{"event": 2100, "what": "error (adwin)"}],
        "drift_count": 1,
        "aside": {"an infinite number in column 'x'": 3},
        "stretches": [
            {
                "from": 2001,
                "to": 2200,
                "error": 0.375,
                "examples": [
                    {
                        "event": 2050,
                        "answer": None,
                        "confidence": 0.0,
                        "label": "yes",
                        "values": {"x": 1.25, "colour": None},
                    }
                ],
            }
        ],
        "measured": {
            "events_per_second": 8000.0,
            "p50_us": 100.0,
            "p99_us": 200.0,
            "memory_bytes": 2**26,
            "rows": [[1000 * n, n, 2**26] for n in range(1, 4)],
        },
    }
    columns = [
        "step",
        "mean_accuracy",
        "window_accuracy",
        "window_no_change",
        "window_majority",
        "share_knn",
        "share_mlp",
    ]
    rows = [[1000 * n, 70 + n, 80 + n, 50, 60, 0.25 * n, 1 - 0.25 * n] for n in range(1, 4)]
    return {
        "id": 0,
        "name": "online.softmax",
        "account": {**account, **more},
        "curves": {"columns": columns, "rows": rows},
    }


def rendered(each: dict[str, Any]) -> str:
    html = page.render({"schema": 1, "name": "doors", "steps": [each]})
    return html.partition('<section id="stream">')[2].partition("</section>")[0]


def test_the_page_shows_all_of_a_stream() -> None:
    html = rendered(step())
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    for part in (
        "3,000 events",
        "80.0 % accuracy no change 50.0 %, majority 60.0 %",
        "85.5 % over the last 1000 labels",
        "error (adwin) at 2,100",
        "&lt;no&gt; at 1,234",
        "Whose answer it was",
        "mlp: 25% at the end",
        "width 75",
        "yes 90 2,000 before",
        "events 2,001 to 2,200: 62.5 % right",
        "2,050 – 0 yes 1.25 –",
        "8,000",
        "100 µs",
        "64 MiB",
        "an infinite number in column 'x' 3".replace("'", "&#39;"),
    ):
        assert part in text, part
    assert "NOT BETTER" not in text
    assert html.count('class="band') == 2
    assert html.count("<polyline") == 4 + 1  # four figures, and memory
    assert "Learning</h2>" not in page.render({"schema": 1, "name": "doors", "steps": [step()]})


def test_a_learner_that_adds_nothing_is_an_alarm() -> None:
    beaten = step(baselines={"no change": 80.0, "majority": 79.9})
    assert [line.partition(":")[0] for line in beaten_by(beaten["account"])] == ["NOT BETTER than 'no change'"]
    assert 'class="alarm"' in rendered(beaten)
    assert beaten_by(step(labels=20, baselines={"majority": 99.0})["account"]) == []
    values = {
        "labels": 99,
        "main": "mae",
        "better": -1,
        "figures": {"mae": 2.0},
        "baselines": {"mean": 1.5, "last value": 3},
    }
    assert [line.split("'")[1] for line in beaten_by(values)] == ["mean"]
    late = step(baselines={"no change": 80.0, "majority": 79.9})["account"] | {"late": 1}
    assert beaten_by(late) == [], "the label before was not known when the question was asked"
    late["blind"] = late["labels"]
    assert "before any label was known" in beaten_by(late)[0]


def test_little_makes_a_short_page_and_other_steps_none() -> None:
    empty = step(
        figures={},
        baselines={},
        classes=[],
        drifts=None,
        stretches=[],
        importance=[],
        aside={},
        measured={},
        labels=0,
        events=0,
    )
    empty["curves"] = None
    part = stream_part(empty)
    assert part is not None
    assert (part.charts, part.tables, part.stretches, len(part.tiles)) == ([], [], [], 1)
    assert stream_part({"account": {}}) is None
    assert rendered({"id": 0, "name": "train.supervised"}) == ""


def test_what_is_far_above_does_not_flatten_the_rest_and_many_members_are_drawn_together() -> None:
    curves = {"now": Curve([0, 1, 2], [1.0, 2.0, 1.0]), "before": Curve([0, 1, 2], [3.0, 90.0, 3.5], quiet=True)}
    svg = timeline(curves, (), x_name="event", y_name="mae")
    assert svg.count('class="line s2 quiet" points') == 2  # before and after it was beyond the chart
    assert "90" not in re.findall(r'class="tick" text-anchor="end">([^<]+)<', svg)
    far = timeline({**curves, "before": Curve([0, 1, 2], [9.0] * 3, quiet=True)}, (), x_name="event", y_name="mae")
    assert "before (above)" in far
    svg = shares([0, 1], {f"m{n}": [n / 66, n / 66] for n in range(12)}, x_name="event")
    assert svg.count("<polygon") == 9
    assert "4 others: 9% at the end" in svg


def test_targets_of_a_recipe_can_name_the_figures_of_a_stream(tmp_path: Path) -> None:
    recipe = parse_recipe(
        """
schema: 1
steps:
  - online.softmax: {stream: {sea: {events: 400}}}
    as: model
targets:
  - {what: right answers, metric: model.accuracy, goal: ">= 60"}
"""
    )
    reports = [build(execute(recipe, store=tmp_path, seed=seed)) for seed in (0, 1)]
    (target,) = reports[0]["targets"]
    assert target["met"]
    assert target["unit"] == "%"
    assert combine(reports)["seeds"]["metrics"]["model.kappa"]["values"] == [
        report["steps"][0]["account"]["figures"]["kappa"] for report in reports
    ]


def test_marks_of_a_timeline_stand_where_they_happened() -> None:
    curve = Curve([0, 100], [0.0, 1.0])
    marks = [Mark(50, "half", "drift"), Mark(500, "beyond", "drift"), Mark(100, "last", "class")]
    svg = timeline({"now": curve}, marks, x_name="event", y_name="accuracy")
    drifts = re.findall(r'class="at-drift" x1="([\d.]+)"', svg)
    first, last = (float(x) for x in re.search(r'points="([\d.]+),[\d.]+ ([\d.]+),', svg).groups())  # type: ignore[union-attr]
    assert [float(each) for each in drifts] == [(first + last) / 2]
    assert re.findall(r'class="at-class" x1="([\d.]+)"', svg) == [f"{last:.1f}"]
    assert "beyond" not in svg
    many = [Mark(n, f"m{n}", "drift") for n in range(1, 60)]
    svg = timeline({"now": curve}, many, x_name="event", y_name="accuracy")
    assert svg.count('class="at-drift"') == 59
    assert "of-drift" not in svg
    assert timeline({"now": Curve([1.0], [float("nan")])}, (), x_name="", y_name="") == ""
    assert shares([1.0], {"a": [1.0]}, x_name="event") == ""
