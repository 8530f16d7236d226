"""The report page: every metric is on it, nothing on it is live, and what a run did not make is left out."""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mapsto import html
from mapsto.errors import SpecError

STAGES = ("teacher", "pruned", "distilled", "int8")
SCRIPT = "<script>alert('x')</script>"


def _png(seed: int) -> str:
    from PIL import Image, ImageDraw

    draw = random.Random(seed)
    image = Image.new("L", (28 * 12, 28 * 4), 255)
    pen = ImageDraw.Draw(image)
    for column in range(12):
        for row in range(4):
            box = [28 * column + draw.randint(4, 9), 28 * row + draw.randint(3, 8)]
            pen.arc([*box, box[0] + 13, box[1] + 15], draw.randint(0, 90), draw.randint(200, 360), fill=0, width=2)
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _metric(value: float, unit: str = "", ci95: float | None = None, n: int | None = None, **more: Any) -> dict[str, Any]:
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
    counts = [[60 + draw.randint(0, 9) if r == c else max(0, draw.randint(-4, 5)) for c in range(10)] for r in range(10)]
    per_class = [[name, draw.uniform(78, 97), draw.uniform(78, 97), draw.uniform(78, 97), 72] for name in classes]
    return {
        "metrics": {"accuracy": _metric(87.63, "%", 0.34, 600), "drop": _metric(0.42, "points", 0.21, 600)},
        "tables": {
            "confusion": {"columns": ["true", *classes], "rows": [[k, *row] for k, row in zip(classes, counts, strict=True)], "units": {}},
            "per_class": {
                "columns": ["class", "precision", "recall", "f1", "support"],
                "rows": per_class,
                "units": {"precision": "%", "recall": "%", "f1": "%"},
            },
        },
        "series": {"by_shots": {"x": [1, 2, 5, 10], "ys": {"teacher": [71, 80, 88, 91], "int8": [70, 79.2, 87.6, 90.4]}, "x_name": "shots", "y_name": "accuracy, %"}},
        "pictures": {"examples": _png(seed)},
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
    names = ["networks.vgg", "meta.protonet", "prune.taylor", "distill.logits", "quantize.static", "adapt.centroid", "export.onnx"]
    labels = [None, *STAGES, "adapted", None]
    steps: list[dict[str, Any]] = []
    for k, (name, label) in enumerate(zip(names, labels, strict=True), start=1):
        more = _training(k, 6, 60) if name == "meta.protonet" else _training(k, 18, 30) if name == "distill.logits" else {}
        steps.append(_step(k, name, label, **more))
    for k, stage in enumerate(STAGES, start=len(steps) + 1):
        size = {"parameters": _metric(9_231_114 / 13 ** (k > 8)), "bytes": _metric(36_924_456, "B"), "peak_memory": _metric(81.2, "MiB", measured=True)}
        latency = {"p50": _metric(12.41 / k, "ms", 0.08, 200, measured=True), "p99": _metric(15.9 / k, "ms", measured=True)}
        of = {"kind": "observe", "of": steps[STAGES.index(stage) + 1]["id"], "kind_out": "Report"}
        steps.append(_step(3 * k, "evaluate.size", "size", path=f"{stage}.size", report={"metrics": size, "tables": {}, "series": {}, "pictures": {}}, **of))
        steps.append(_step(3 * k + 1, "evaluate.latency", "latency", path=f"{stage}.latency", report={"metrics": latency, "tables": {}, "series": {}, "pictures": {}}, **of))
        if stage in ("teacher", "int8"):
            steps.append(_step(3 * k + 2, "evaluate.episodes", "digits", path=f"{stage}.digits", report=_digits_report(k), **of))
    fields = [{"depth": 11}, {"tasks": "$train", "steps": 600}, {"data": "$train", "macs": 0.1}, {"teacher": "$teacher", "data": "$train", "epochs": 12}, {"data": "$train"}, {"data": "$digits"}, {}]
    nodes = [{"id": s["id"], "label": s["label"], "name": s["name"], "kind_out": s["kind_out"], "fields": f, "step": s["id"], "observe": False} for s, f in zip(steps, fields, strict=False)]
    edges = [[a["id"], b["id"], "value"] for a, b in zip(nodes, nodes[1:], strict=False)] + [["s2", "s4", "ref"]]
    return {
        "schema": 1,
        "name": "demo",
        "title": "A VGG learns printed glyphs, and a small one reads handwriting",
        "created": "2026-11-24T03:12:45Z",
        "seed": 0,
        "wall_s": 251.4,
        "status": "finished",
        "environment": {
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "cores": 2, "threads": 2, "memory_gib": 15.6, "python": "3.11.7",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36", "numerics": {"device": "cpu", "precision": "32-true"},
            "packages": {"mapsto": "0.1.0", "torch": "2.13.0+cpu", "lightning": "2.6.6", "numpy": "2.4.6", "onnx": "1.23.2", "onnxruntime": "1.32.0"},
        },
        "recipe": {"yaml": YAML, "graph": {"nodes": nodes, "edges": edges}},
        "steps": steps,
        "summary": {
            "columns": ["stage", "parameters", "macs", "bytes", "scripts accuracy", "digits accuracy", "digits drop", "latency p50"],
            "rows": [
                ["teacher", 9_231_114, 38_142_976, 36_924_456, {"value": 93.21, "ci95": 0.41}, {"value": 88.05, "ci95": 0.36}, None, {"value": 4.31, "ci95": 0.05}],
                ["pruned", 712_330, 3_611_204, 2_849_320, {"value": 86.02, "ci95": 0.52}, {"value": 81.77, "ci95": 0.5}, {"value": 6.28, "ci95": 0.4}, {"value": 0.81, "ci95": 0.02}],
                ["distilled", 712_330, 3_611_204, 2_849_320, {"value": 92.88, "ci95": 0.4}, {"value": 87.9, "ci95": 0.34}, {"value": 0.15, "ci95": 0.2}, {"value": 0.8, "ci95": 0.02}],
                ["int8", 712_330, 3_611_204, 731_204, {"value": 92.7, "ci95": 0.4}, {"value": 87.63, "ci95": 0.34}, {"value": 0.42, "ci95": 0.21}, {"value": 0.19, "ci95": 0.01}],
            ],
            "units": {"bytes": "B", "scripts accuracy": "%", "digits accuracy": "%", "digits drop": "points", "latency p50": "ms"},
        },
        "targets": [
            {"what": "parameters of the teacher over those of the small network", "goal": ">= 12", "measured": 12.96, "unit": "×", "ci95": None, "met": True},
            {"what": "drop on the digits, 10-way 5-shot, paired over 600 episodes", "goal": "<= 1", "measured": 0.42, "unit": "points", "ci95": 0.21, "met": True},
            {"what": "faster than the teacher in ONNX Runtime, one thread", "goal": ">= 5", "measured": 4.7, "unit": "×", "ci95": None, "met": False},
            {"what": "Omniglot, 5-way 1-shot, teacher", "goal": ">= 89", "measured": None, "unit": "", "ci95": None, "met": None},
        ],
        "skipped": {"omniglot": "there is no Omniglot in the data folder"},
        "seeds": {"seeds": [0, 1, 2], "metrics": {"teacher.digits.accuracy": {"value": 88.4, "mean": 88.4, "ci95": 0.9, "values": [88.05, 88.3, 88.9], "unit": "%"}}},
    }  # fmt: skip


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
