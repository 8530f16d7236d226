"""The report page: every metric is on it, nothing on it is live, and what a run did not make is left out."""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.browser import CHROMIUM, in_a_browser

from mapsto.errors import SpecError
from mapsto.report import page as html

STAGES = ("teacher", "pruned", "distilled", "int8")
SCRIPT = "<script>alert('x')</script>"


def _png(seed: int) -> str:
    from PIL import Image, ImageDraw

    draw = random.Random(seed)
    image = Image.new("L", (28, 28), 255)
    corner = [draw.randint(4, 9), draw.randint(3, 8)]
    ends = draw.randint(0, 90), draw.randint(200, 360)
    ImageDraw.Draw(image).arc([*corner, corner[0] + 13, corner[1] + 15], *ends, fill=0, width=2)
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _metric(
    value: float, unit: str = "", ci95: float | None = None, n: int | None = None, **more: Any
) -> dict[str, Any]:
    return {"value": value, "unit": unit, "ci95": ci95, "n": n, "measured": False, **more}


def _step(index: int, name: str, label: str | None = None, **more: Any) -> dict[str, Any]:
    hashed = f"{index * 0x9E3779B97F4A7C15 % 2**64:016x}"
    base = {"id": f"s{index}", "name": name, "label": label, "kind": "step", "of": None, "inputs": [], "fields": {}}
    base |= {"key": hashed * 4, "digest": hashed[::-1] * 4, "hit": index % 3 == 0, "seconds": 0.4 * index**2}
    return base | {"kind_out": "Network", "report": None, "curves": None, "epochs": None} | more


def _training(seed: int, epochs: int, per_epoch: int) -> dict[str, Any]:
    draw = random.Random(seed)
    rows: list[list[Any]] = []
    for step in range(1, epochs * per_epoch + 1):
        share = step / (epochs * per_epoch)
        loss = 3.2 * math.exp(-4 * share) + 0.15 + abs(draw.gauss(0, 0.18)) * (1.2 - share)
        ends = step % per_epoch == 0
        closing = [step // per_epoch, loss * 0.97, loss * 1.1 + 0.03] if ends else [None, None, None]
        rows.append([step, loss, 0.05 * (1 + math.cos(math.pi * share)), *closing])
    columns = ["step", "train_loss", "lr", "epoch", "epoch_train_loss", "val_loss"]
    table = {"columns": ["epoch", "train_loss", "val_loss"], "rows": [row[3:] for row in rows if row[3] is not None]}
    return {"curves": {"columns": columns, "rows": rows}, "epochs": table}


def _digits_report(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    classes = [str(k) for k in range(10)]
    counts = [
        [60 + draw.randint(0, 9) if r == c else max(0, draw.randint(-4, 5)) for c in range(10)] for r in range(10)
    ]
    per_class = [[name, draw.uniform(78, 97), draw.uniform(78, 97), draw.uniform(78, 97), 72] for name in classes]
    return {
        "metrics": {"accuracy": _metric(87.63, "%", 0.34, 600), "drop": _metric(0.42, "points", 0.21, 600)},
        "tables": {
            "confusion": {
                "columns": ["label \\ predicted", *classes],
                "rows": [[k, *row] for k, row in zip(classes, counts, strict=True)],
                "units": {},
            },
            "per_class": {
                "columns": ["class", "precision", "recall", "f1", "support"],
                "rows": per_class,
                "units": {"precision": "%", "recall": "%", "f1": "%"},
            },
        },
        "series": {
            "by_shots": {
                "x": [1, 2, 5, 10],
                "ys": {"teacher": [71, 80, 88, 91], "int8": [70, 79.2, 87.6, 90.4]},
                "x_name": "shots",
                "y_name": "accuracy, %",
            }
        },
        "pictures": {
            f"{name}_{k}_{k}{'_as_9' * (name == 'wrong')}": _png(9 * k + seed)
            for name in ("right", "wrong")
            for k in range(1, 7)
        },
    }


YAML = """schema: 1
name: demo
seed: 0
data:
  train: {glyphs: {split: train, characters: 1200}}
  digits: {digits: {}}
steps:
  - networks.vgg: {depth: 11}
  - meta.protonet: {tasks: $train, steps: 600}
    as: teacher
  - prune.taylor: {data: $train, macs: 0.1}
    as: pruned
  - distill.logits: {teacher: $teacher, data: $train, epochs: 12}
    as: distilled
  - quantize.static: {data: $train}
    as: int8
  - adapt.centroid: {data: $digits}
  - export.onnx: {}
"""


def sample() -> dict[str, Any]:
    """A report such as the demo leaves."""
    names = [
        "networks.vgg",
        "meta.protonet",
        "prune.taylor",
        "distill.logits",
        "quantize.static",
        "adapt.centroid",
        "export.onnx",
    ]
    labels = [None, *STAGES, "adapted", None]
    steps: list[dict[str, Any]] = []
    for k, (name, label) in enumerate(zip(names, labels, strict=True), start=1):
        more = (
            _training(k, 6, 60) if name == "meta.protonet" else _training(k, 18, 30) if name == "distill.logits" else {}
        )
        steps.append(_step(k, name, label, **more))
    for k, stage in enumerate(STAGES, start=len(steps) + 1):
        size = {
            "parameters": _metric(9_231_114 / 13 ** (k > 8)),
            "macs": _metric(3_611_204, "MAC"),
            "bytes": _metric(36_924_456, "B"),
            "peak_memory": _metric(81.2, "MiB", measured=True),
        }
        latency = {
            "p50": _metric(12.41 / k, "ms", 0.08, 200, measured=True),
            "p99": _metric(15.9 / k, "ms", measured=True),
        }
        of = {"kind": "observe", "of": f"s{STAGES.index(stage) + 2}", "kind_out": "Report"}
        steps.append(
            _step(
                3 * k,
                "evaluate.size",
                "size",
                path=f"{stage}.size",
                report={"metrics": size, "tables": {}, "series": {}, "pictures": {}},
                **of,
            )
        )
        steps.append(
            _step(
                3 * k + 1,
                "evaluate.latency",
                "latency",
                path=f"{stage}.latency",
                report={"metrics": latency, "tables": {}, "series": {}, "pictures": {}},
                **of,
            )
        )
        if stage in ("teacher", "int8"):
            steps.append(
                _step(3 * k + 2, "evaluate.episodes", "digits", path=f"{stage}.digits", report=_digits_report(k), **of)
            )
    fields = [
        {"depth": 11},
        {"tasks": "$train", "steps": 600},
        {"data": "$train", "macs": 0.1},
        {"teacher": "$teacher", "data": "$train", "epochs": 12},
        {"data": "$train"},
        {"data": "$digits"},
        {},
    ]
    nodes = [
        {
            "id": s["id"],
            "label": s["label"],
            "name": s["name"],
            "kind_out": s["kind_out"],
            "fields": f,
            "step": s["id"],
            "observe": False,
        }
        for s, f in zip(steps, fields, strict=False)
    ]
    edges = [[a["id"], b["id"], "value"] for a, b in pairwise(nodes)] + [["s2", "s4", "ref"]]
    return {
        "schema": 1,
        "name": "demo",
        "title": "A VGG learns printed glyphs, and a small one reads handwriting",
        "created": "2026-11-24T03:12:45Z",
        "seed": 0,
        "wall_s": 251.4,
        "status": "finished",
        "environment": {
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "cores": 2,
            "threads": 2,
            "memory_gib": 15.6,
            "python": "3.11.7",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "numerics": {"device": "cpu", "precision": "32-true"},
            "packages": {
                "mapsto": "0.1.0",
                "torch": "2.13.0+cpu",
                "lightning-fabric": "2.6.6",
                "numpy": "2.4.6",
                "onnx": "1.23.2",
                "onnxruntime": "1.32.0",
            },
        },
        "recipe": {"yaml": YAML, "graph": {"nodes": nodes, "edges": edges}},
        "steps": steps,
        "summary": {
            "columns": [
                "stage",
                "parameters",
                "macs",
                "bytes",
                "scripts accuracy",
                "digits accuracy",
                "digits drop",
                "latency p50",
            ],
            "rows": [
                [
                    "teacher",
                    9_231_114,
                    38_142_976,
                    36_924_456,
                    {"value": 93.21, "ci95": 0.41},
                    {"value": 88.05, "ci95": 0.36},
                    None,
                    {"value": 4.31, "ci95": 0.05},
                ],
                [
                    "pruned",
                    712_330,
                    3_611_204,
                    2_849_320,
                    {"value": 86.02, "ci95": 0.52},
                    {"value": 81.77, "ci95": 0.5},
                    {"value": 6.28, "ci95": 0.4},
                    {"value": 0.81, "ci95": 0.02},
                ],
                [
                    "distilled",
                    712_330,
                    3_611_204,
                    2_849_320,
                    {"value": 92.88, "ci95": 0.4},
                    {"value": 87.9, "ci95": 0.34},
                    {"value": 0.15, "ci95": 0.2},
                    {"value": 0.8, "ci95": 0.02},
                ],
                [
                    "int8",
                    712_330,
                    3_611_204,
                    731_204,
                    {"value": 92.7, "ci95": 0.4},
                    {"value": 87.63, "ci95": 0.34},
                    {"value": 0.42, "ci95": 0.21},
                    {"value": 0.19, "ci95": 0.01},
                ],
            ],
            "units": {
                "macs": "MAC",
                "bytes": "B",
                "scripts accuracy": "%",
                "digits accuracy": "%",
                "digits drop": "points",
                "latency p50": "ms",
            },
        },
        "targets": [
            {
                "what": "parameters of the teacher over those of the small network",
                "goal": ">= 12",
                "measured": 12.96,
                "unit": "×",
                "ci95": None,
                "met": True,
            },
            {
                "what": "drop on the digits, 10-way 5-shot, paired over 600 episodes",
                "goal": "<= 1",
                "measured": 0.42,
                "unit": "points",
                "ci95": 0.21,
                "met": True,
            },
            {
                "what": "faster than the teacher in ONNX Runtime, one thread",
                "goal": ">= 5",
                "measured": 4.7,
                "unit": "×",
                "ci95": None,
                "met": False,
            },
            {
                "what": "Omniglot, 5-way 1-shot, teacher",
                "goal": ">= 89",
                "measured": None,
                "unit": "",
                "ci95": None,
                "met": None,
            },
        ],
        "skipped": {"omniglot": "there is no Omniglot in the data folder"},
        "seeds": {
            "seeds": [0, 1, 2],
            "metrics": {
                "teacher.digits.accuracy": {
                    "value": 88.4,
                    "mean": 88.4,
                    "ci95": 0.9,
                    "values": [88.05, 88.3, 88.9],
                    "unit": "%",
                }
            },
        },
    }


class _Text(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._stack: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads(json.dumps(sample()))


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return html.render(report)


def test_every_metric_of_every_step_is_on_the_page(report: dict[str, Any], page: str) -> None:
    rows = re.findall(r"<tr><td>(\w+)</td><td class=\"n\" title=\"([^\"]*)\">", page)
    wanted = [
        (name, repr(metric["value"]))
        for step in report["steps"]
        if step["report"]
        for name, metric in step["report"]["metrics"].items()
    ]
    assert rows == wanted
    assert len(wanted) > 20
    text = " ".join(_Text(page).text)
    for step in report["steps"]:
        assert step["digest"] in text
        assert step["key"] in text


def test_without_targets_the_outcome_is_in_the_header(report: dict[str, Any], page: str) -> None:
    assert '<ul class="tiles">' not in page, (
        "with targets these give the figures, and no second figure stands for the same"
    )
    page = html.render({**report, "targets": []})
    tiles = re.findall(r"<li><strong>(.*?)</strong><span>(.*?)</span><small>(.*?)</small>", page)
    plain = [(value, re.sub(r"<.*?>", "", what), note) for value, what, note in tiles]
    assert plain == [
        ("13×", "fewer parameters", "9.23M → 712k"),
        ("10.6×", "fewer macs", "38.1M → 3.61M"),
        ("50.5×", "smaller bytes", "36.9 MB → 731 kB"),
        ("22.7×", "faster latency p50", "4.31 ms → 0.19 ms"),
        ("−0.4", "points digits", "± 0.21, paired"),
        ("−0.5", "points scripts accuracy", "93.2 → 92.7 %"),
    ]


@pytest.mark.parametrize(
    ("taken", "tiles"),
    [("frozen", []), ("tuned", []), ("small", [("−1.5", "points <b>accuracy</b>", "98.8 → 97.3 %")])],
)
def test_the_header_speaks_of_the_branch_that_was_taken(taken: str, tiles: list[tuple[str, str, str]]) -> None:
    accuracies = {"original": 98.8, "frozen": 98.8, "tuned": 97.9, "small": 97.3}
    judged = {"metrics": {"accuracy": _metric(accuracies[taken], "%")}, "tables": {}, "series": {}, "pictures": {}}
    ends = {"frozen": "f", "tuned": "t", "small": "s"}
    steps = [_step(0, "networks.minilm", "original", path="original")]
    steps += [
        _step(1 + at, "adapt.best", name, path=name, branch=[name], digest=digest)
        for at, (name, digest) in enumerate(ends.items())
    ]
    steps += [
        _step(4, "choose.best", "chosen", path="chosen", digest=ends[taken], branch=[]),
        _step(5, "evaluate.accuracy", "accuracy", path="chosen.accuracy", of="s4", report=judged, branch=[]),
        _step(6, "export.onnx", "package", path="package", branch=[]),
    ]
    begin = [["original", accuracies["original"]]] if taken == "small" else []
    rows = [*begin, ["chosen", accuracies[taken]], *([name, accuracies[name]] for name in ends), ["package", None]]
    summary = {"columns": ["stage", "accuracy"], "rows": rows, "units": {"accuracy": "%"}}
    page = html.render({"schema": 1, "name": "demo", "steps": steps, "summary": summary})
    assert re.findall(r"<li><strong>(.*?)</strong><span>(.*?)</span><small>(.*?)</small>", page) == tiles


def test_finished_is_green_only_where_every_target_is_met(report: dict[str, Any], page: str) -> None:
    def status(met: list[bool | None]) -> tuple[str, str]:
        targets = [{"what": "a", "metric": "a.b", "goal": ">= 1", "measured": 1.0, "met": each} for each in met]
        found = re.search(
            r'<span class="status (\w+)">(.*?)</span>', html.render({**report, "warnings": [], "targets": targets})
        )
        assert found is not None
        return found[1], found[2]

    assert status([True, True]) == ("ok", "finished, every target met")
    assert status([True, False]) == ("bad", "finished, 1 of 2 targets unmet")
    assert status([True, None]) == ("none", "finished, 1 of 2 targets not measured")
    assert 'class="status ok"' not in page


def test_tables_of_one_row_stand_in_one_table() -> None:
    def step(number: int, accuracy: float) -> dict[str, Any]:
        table = {"columns": ["ways", "accuracy"], "rows": [[5, accuracy]], "units": {"accuracy": "%"}}
        report = {"metrics": {}, "series": {}, "pictures": {}, "tables": {"episodes": table}}
        return {"id": number, "name": "evaluate.episodes", "label": f"stage{number}", "of": None, "report": report}

    page = html.render({"schema": 1, "name": "a", "title": "a", "steps": [step(k, 90.0 + k) for k in range(8)]})
    detail = page[page.index('id="evidence"') :]
    detail = detail[: detail.index("</section>")]
    assert detail.count("<table>") == 1
    assert detail.count("<tr>") == 1 + 8
    assert [f"{90 + k:.0f}" in detail for k in range(8)] == [True] * 8


def test_targets_say_met_unmet_and_not_run(page: str) -> None:
    assert "2 met, 1 unmet, 1 not run" in page
    assert [page.count(verdict) for verdict in ("✓ met", "✗ unmet", "– not run")] == [2, 1, 1]
    assert "≤\u00a01\u00a0points" in page, "a number and its unit stay in one line"
    assert "there is no Omniglot in the data folder" in page


def test_the_parts_are_drawn(report: dict[str, Any], page: str) -> None:
    names = [attributes.get("aria-label") for tag, attributes in _Text(page).tags if tag == "svg"]
    assert names.count("confusion matrix") == 2
    assert names.count("the recipe as a graph") == 1
    assert names.count("accuracy, % against bytes (log)") == 1
    assert names.count("accuracy, % against latency p50, ms (log)") == 1
    assert names.count("loss against step") == names.count("loss against epoch") == 2
    flow = page[page.index('class="chart flow"') :]
    flow = flow[: flow.index("</svg>")]
    assert flow.count('class="wire"') == 6
    assert flow.count('class="bus') == 1
    assert "measured: size, latency, digits" in flow
    assert page.count("<img ") == 24
    assert "✗</span> 3 → 9" in page
    losses = next(step for step in report["steps"] if step["name"] == "distill.logits")["epochs"]["rows"]
    assert page.count("<caption>By epoch</caption>") == 2
    assert f"{losses[-1][2]:.2f}" in page


def _with_text_everywhere(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.startswith(("data:", ">=", "<=")) or value in {"value", "ref"} else value + SCRIPT
    if isinstance(value, list):
        return [_with_text_everywhere(item) for item in value]
    return {k: _with_text_everywhere(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_long_names_of_classes_are_cut_and_kept_in_a_title() -> None:
    long, broken = "x" * 99 + "end", "big\ncat"
    table = {"columns": ["class", "why", long], "rows": [[long, long, 1], [broken, broken, 2]]}
    view = html._view(table)
    assert [len(column) for column in view.columns] == [5, 3, 40]
    first, second = (row[0] for row in view.rows)
    assert (len(first.text), first.title, second.text) == (40, long, "big\\ncat")
    assert first.text.endswith("end")
    assert [row[1].text for row in view.rows] == [long, broken], "what is no name is shown whole"


def test_all_text_is_escaped(report: dict[str, Any]) -> None:
    page = html.render(_with_text_everywhere(report))
    assert page.count("&lt;script&gt;") > 100
    assert [tag for tag, _ in _Text(page).tags].count("script") == 1


def test_only_png_data_is_shown(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    for step in changed["steps"]:
        if step["report"] and step["report"]["pictures"]:
            step["report"]["pictures"] = {
                "a": "https://example.com/x.png",
                "b": 'data:image/png;base64,"onerror="x',
                "c": "data:image/svg+xml,<svg/>",
            }
    assert "<img" not in html.render(changed)


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    for tag, attributes in _Text(page).tags:
        assert tag not in {"iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_in_page_links_lead_somewhere(page: str) -> None:
    tags = _Text(page).tags
    known = {attributes.get("id") for _, attributes in tags}
    links = [str(attributes["href"]) for tag, attributes in tags if tag == "a"]
    assert len(links) == 8
    assert {link.removeprefix("#") for link in links} <= known


def test_without_its_optional_parts() -> None:
    page = html.render({"schema": 1, "name": "small"})
    assert "<h1>small</h1>" in page
    assert not re.search(r"<(section|svg|table|img)\b", page)


@pytest.mark.parametrize(
    "part", ["environment", "recipe", "steps", "summary", "targets", "seeds", "skipped", "created", "wall_s"]
)
@pytest.mark.parametrize("empty", [True, False])
def test_each_part_may_be_missing(report: dict[str, Any], part: str, empty: bool) -> None:
    smaller = {name: value for name, value in report.items() if name != part} | ({part: None} if empty else {})
    assert "</html>" in html.render(smaller)


def test_numbers_that_are_none_of_the_finite_ones() -> None:
    report = {
        "schema": 1,
        "name": "nan",
        "summary": {
            "columns": ["stage", "bytes", "accuracy"],
            "rows": [["a", 0, math.nan], ["b", None, math.inf]],
            "units": {},
        },
        "steps": [
            _step(1, "train.supervised", curves={"columns": ["step", "train_loss"], "rows": [[1, math.nan], [2, None]]})
        ],
    }
    page = html.render(report)
    assert "no finite values" in page
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)


def test_many_classes_are_still_drawn() -> None:
    n = 100
    names = [f"character {k}" for k in range(n)]
    table = {
        "columns": ["label", *names],
        "rows": [[name, *(int(r == c) for c in range(n))] for r, name in enumerate(names)],
    }
    step = _step(
        1, "evaluate.accuracy", report={"metrics": {}, "tables": {"confusion": table}, "series": {}, "pictures": {}}
    )
    page = html.render({"schema": 1, "name": "many", "steps": [step]})
    assert page.count('class="cell') == n * n


def test_a_report_of_another_schema_is_refused() -> None:
    with pytest.raises(SpecError, match="schema 2"):
        html.render({"schema": 2})


def test_rendering_needs_neither_torch_nor_numpy(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    code = "import json, sys; from mapsto.report import page; page.render(json.load(open(sys.argv[1]))); print(*sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "report.json")]
    modules = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    assert "jinja2" in modules
    assert not {"torch", "numpy", "matplotlib"} & set(modules)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
@pytest.mark.parametrize("width", [400, 1200])
def test_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    """No message on the console, no request to anywhere, the script runs, and nothing is wider than the window."""
    assert in_a_browser(page, tmp_path, width) == {"wide": width, "loaded": [], "open": True, "broken": 0}


def test_a_large_search_has_one_box_for_each_branch_and_one_for_its_folds() -> None:
    shares = ("a_0_5", "a_0_25")
    steps: list[dict[str, Any]] = [_step(0, "networks.vgg")]
    for label in (*shares, *(f"{share}_without_{fold}" for share in shares for fold in range(3))):
        for name in ("prune.magnitude", "quantize.static"):
            steps.append(_step(len(steps), name, f"{label}_{name[0]}", branch=[label, "inner"]))
    steps.append(_step(len(steps), "choose.best", "chosen", warnings=["a warning"]))
    chosen = len(steps) - 1
    nodes = [
        {
            "id": place,
            "step": step["id"],
            "label": step["label"],
            "name": step["name"],
            "kind_out": "Network",
            "fields": {},
        }
        for place, step in enumerate(steps)
    ]
    edges = [[0, first, "value"] for first in range(1, chosen, 2)] + [[k, k + 1, "value"] for k in range(1, chosen, 2)]
    edges += [[2, chosen, "value"], [4, chosen, "value"]] + [[k, chosen, "ref"] for k in range(2, chosen, 2)]
    same, other = ({"path": path, "text": text} for path, text in (("a_0_5", "said twice"), ("a_0_25", "said twice")))
    page = html.render(
        {
            "schema": 1,
            "name": "search",
            "steps": steps,
            "recipe": {"graph": {"nodes": nodes, "edges": edges}, "yaml": ""},
            "warnings": [same, other],
        }
    )
    boxes = re.findall(r'class="strong" text-anchor="start">(.*?)</text>', page)
    assert boxes == ["networks.vgg", "a_0_5", "a_0_25", "6 branches", "choose.best"]
    assert page.count('class="wire"') == 5, "from the network to each, and from two to the choice"
    assert page.count('class="bus') == 1, "the folds are only referred to"
    assert "<summary>6 branches, a_0_5_without_0 to a_0_25_without_2: 12 steps</summary>" in page
    assert "<h2>1 warning</h2>" in page
    assert "<b>a_0_5, a_0_25</b>: said twice" in page


def test_a_figure_that_is_missing_changes_no_other() -> None:
    """Figures behind a gap of their column keep their decimals."""
    rows = [("teacher", 1.37, 95.53), ("big", None, None), ("small", 0.148, 39.07)]
    view = html._view(
        {"columns": ("stage", "latency", "drop"), "rows": rows, "units": {"latency": "ms", "drop": "points"}}
    )
    assert [cell.text for cell in view.rows[2]] == ["small", "0.15", "39.07"]
    assert [cell.text for cell in view.rows[1][1:]] == ["–", "–"]
