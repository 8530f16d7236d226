"""The main job, as its user runs it: `mapsto run demo` in a new store, again, and over three seeds.

mapsto bench main_job
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

FIGURES = (
    "parameters_ratio",
    "macs_ratio",
    "speedup",
    "accuracy",
    "drop",
)


def main(quick: bool = False) -> dict[str, Any]:
    seeds = (0,) if quick else (0, 1, 2)
    reports: list[dict[str, Any]] = []
    walls: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = [sys.executable, "-X", "importtime", "-m", "mapsto", "run", "demo", "--store", str(place / "store")]
        base += ["--quick"] if quick else []
        for seed in seeds:
            out = place / f"seed-{seed}"
            began = time.perf_counter()
            subprocess.run([*base, "--seed", str(seed), "--out", str(out)], check=True, stderr=subprocess.DEVNULL)
            walls.append(time.perf_counter() - began)
            reports.append(json.loads((out / "report.json").read_text(encoding="utf-8")))
        began = time.perf_counter()
        again = subprocess.run(
            [*base, "--seed", "0", "--out", str(place / "again")],
            check=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        second = time.perf_counter() - began
        imports = {
            line.rpartition("|")[2].strip() for line in again.stderr.splitlines() if line.startswith("import time:")
        }
    from mapsto.report.build import metrics_of, t95

    rows: list[dict[str, Any]] = []
    metrics = [metrics_of(report["steps"]) for report in reports]
    for path, metric in metrics[0].items():
        if any(path.rpartition(".")[2].startswith(figure) for figure in FIGURES):
            values = [one[path]["value"] for one in metrics]
            rows.append(
                {
                    "what": path,
                    "unit": metric["unit"],
                    "seed 0": values[0],
                    "ci95 within seed 0": metric["ci95"],
                    "n": metric["n"],
                    "mean of seeds": sum(values) / len(values),
                    "ci95 over seeds": t95(values),
                }
            )
    rows.append(
        {"what": "wall time, new store", "unit": "s", "seed 0": walls[0], "mean of seeds": sum(walls) / len(walls)}
    )
    rows.append({"what": "wall time, second run", "unit": "s", "seed 0": second})
    targets = [
        {key: entry[key] for key in ("what", "goal", "measured", "met")}
        for entry in reports[0]["targets"]
        if entry["metric"] != "run.seconds"
    ]
    targets += [
        common.target("wall time from a warm environment, seconds", "<= 300", walls[0]),
        common.target("wall time the second time, seconds", "<= 5", second),
        common.target("torch imports the second time", "<= 0", float("torch" in imports)),
    ]
    for what, path, goal in (
        ("teacher on the digits, mean of three seeds (goal)", "teacher.digits.accuracy", ">= 89"),
        ("teacher on Omniglot, mean of three seeds (goal)", "teacher.omniglot.accuracy", ">= 92"),
    ):
        measured = [one[path]["value"] for one in metrics if path in one]
        targets.append(common.target(what, goal, sum(measured) / len(measured) if measured else None))
    tree = common.result(
        "main_job", conditions={"seeds": list(seeds), "recipe": "demo", "quick": quick}, rows=rows, targets=targets
    )
    return common.finished(tree, quick=quick)


if __name__ == "__main__":
    main("--quick" in sys.argv)
