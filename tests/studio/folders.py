"""Folders of results: two runs of a small recipe, and the outcome of a search as its file has it.

``results`` holds what `make_runs` made once: to run it takes longer than all that is tested of its pages. A slow test runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from mapsto.report import build, page
from mapsto.studio.application import application
from mapsto.studio.results import Folders
from mapsto.studio.site import Studio

__all__ = ["FRONTIER", "client", "copied", "make_runs", "make_search"]

RECIPE = """\
schema: 1
name: small
title: A small network for digits
data:
  few: {{subset: {{data: {{digits: {{size: 8}}}}, per_class: 2}}}}
steps:
  - networks.conv4: {{data: $few, width: 4, blocks: 1}}
  - train.supervised: {{data: $few, epochs: {epochs}, batch_size: 10}}
    as: big
    observe: {{check: {{evaluate.accuracy: {{data: $few}}}}, size: {{evaluate.size: {{}}}}}}
  - prune.magnitude: {{macs: 0.5}}
    as: cut
    observe: {{check: {{evaluate.accuracy: {{data: $few}}}}, size: {{evaluate.size: {{}}}}}}
targets:
  - {{what: it reads digits, metric: big.check.accuracy, goal: ">= 101"}}
"""


def make_runs(folder: Path) -> None:
    """Two runs over one store, which differ by one line."""
    from mapsto.context import Numerics
    from mapsto.recipe.reader import parse_recipe
    from mapsto.recipe.writer import dump
    from mapsto.run.executor import execute
    from mapsto.store import Store

    store = Store(folder / "store")
    for name, epochs in (("first", 2), ("second", 3)):
        recipe = parse_recipe(RECIPE.format(epochs=epochs), where="small.yaml")
        out = folder / "runs" / name
        run = execute(recipe, store=store, seed=0, numerics=Numerics(threads=1), logs=out / "logs")
        report = build.build(run) | {"command": {"recipe": "small.yaml", "options": []}}
        build.save(report, out, recipe_yaml=dump(recipe))


def copied(folder: Path) -> None:
    """The runs as `make_runs` once made them, with their pages."""
    for source in sorted((Path(__file__).parent / "results").iterdir()):
        shutil.copytree(source, folder / source.name)
        report = build.load(folder / source.name)
        (folder / source.name / "report.html").write_text(page.render(report), encoding="utf-8")
        now = time.time()
        os.utime(folder / source.name / "report.json", (now, now))
        for log in (folder / source.name / "logs").glob("*/metrics.csv"):
            os.utime(log, (now - 5, now - 5))


def _point(trial: int, accuracy: float, macs: float, stage: str) -> dict[str, Any]:
    ends = {"low": accuracy - 2, "high": accuracy + 1}
    return {
        "trial": trial,
        "holes": {"share": macs / 1e6, "small": stage},
        "values": [accuracy, macs],
        "resolved": {"small.check.accuracy": f"{stage}.check.accuracy", "small.size.macs": f"{stage}.size.macs"},
        "metrics": {
            f"{stage}.check.accuracy": {"value": accuracy, "unit": "%", **ends},
            f"{stage}.size.macs": {"value": macs, "unit": "MAC"},
            f"{stage}.size.bytes": {"value": macs / 10, "unit": "B"},
            "big.latency.p50": {"value": 1.5, "unit": "ms"},
        },
        "recipe": f"recipes/trial_{trial:03d}.yaml",
        "command": f"mapsto run found/recipes/trial_{trial:03d}.yaml --threads 1",
    }


def _trial(number: int, values: list[float], state: str = "complete") -> dict[str, Any]:
    row = {"number": number, "state": state, "holes": {"share": 0.5}, "values": values, "misses": {}, "error": ""}
    return row | {"steps": 3, "hits": 1, "seconds": 0.5, "saved": 0, "again": None, "role": ""}


FRONTIER: dict[str, Any] = {
    "schema": 1,
    "name": "digits by work",
    "objectives": [
        {"metric": "small.check.accuracy", "goal": "maximize"},
        {"metric": "small.size.macs", "goal": "minimize"},
    ],
    "limits": [],
    "holes": [{"name": "share", "kind": "range", "low": 0.1, "high": 0.9, "log": False, "default": 0.5}],
    "best": 1,
    "frontier": [_point(1, 98.0, 400_000.0, "distilled"), _point(2, 90.0, 100_000.0, "pruned")],
    "nearest": None,
    "ablation": [],
    "importance": {},
    "trials": [_trial(0, [80.0, 500_000.0]), _trial(1, [98.0, 400_000.0]), _trial(2, [90.0, 100_000.0])],
    "saved": {"steps": 9, "hits": 3, "seconds": 1.0},
    "warnings": [],
}


def make_search(folder: Path) -> None:
    """The folder of a search."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "frontier.json").write_text(json.dumps(FRONTIER), encoding="utf-8")
    for point in FRONTIER["frontier"]:
        (folder / point["recipe"]).write_text("schema: 1\nname: point\n", encoding="utf-8")


def client(*folders: Path, **more: Any) -> TestClient:
    """A client of a studio over folders, whose errors are those of the server."""
    return TestClient(application(Studio(folders=Folders(list(folders)), **more)))
