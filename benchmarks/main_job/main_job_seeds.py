"""The main job over ten seeds that nothing was chosen by: what the small network loses beside its teacher, mean and worst.

mapsto bench main_job_seeds

Ten runs of `mapsto run demo`, two at a time with one thread each, take one to two hours on two cores. Their reports are kept in
runs/main_job_seeds until the last is there, so a killed benchmark goes on where it was; what has ended until then is in the result.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import common

SEEDS = tuple(range(1000, 1010))
"""Neither the recipe's own nor any that it was chosen by."""
AT_ONCE = 2
"""Runs at a time, of one thread each."""
FOLDER = Path("runs") / "main_job_seeds"
LOSSES = (
    ("digits", "points lost on the digits", ("<= 0.3", "<= 1")),
    ("scripts", "points lost on unseen scripts", ("<= 0.3", "<= 1")),
)


def main(quick: bool = False) -> dict[str, Any]:
    seeds = SEEDS[:2] if quick else SEEDS
    folder = FOLDER.with_name(FOLDER.name + "_quick") if quick else FOLDER
    reports: dict[int, dict[str, Any]] = {}
    tree: dict[str, Any] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(_report, seed, folder / f"seed-{seed}", quick): seed for seed in seeds}
        for ended in as_completed(running):
            reports[running[ended]] = ended.result()
            tree = _result(seeds, reports, quick)
            if not quick:
                common.save(tree)
    common.show(tree["rows"])
    common.show(tree["targets"])
    shutil.rmtree(folder, ignore_errors=True)
    return tree


def _result(seeds: Sequence[int], reports: dict[int, dict[str, Any]], quick: bool) -> dict[str, Any]:
    """What the seeds that have ended come to; the others stand there as not run."""
    from mapsto.report.build import metrics_of, t95

    rows: list[dict[str, Any]] = []
    for seed in seeds:
        row: dict[str, Any] = {"what": f"seed {seed}"}
        metrics = metrics_of(reports[seed]["steps"]) if seed in reports else {}
        for name, _, _ in LOSSES:
            for key, path in (
                ("teacher", "teacher.{}.accuracy"),
                ("int8", "int8.{}.accuracy"),
                ("lost", "int8.{}.drop"),
            ):
                row[f"{key}, {name}"] = metrics[path.format(name)]["value"] if metrics else "not run"
        rows.append(row)
    targets: list[dict[str, Any]] = []
    intervals: dict[str, Any] = {}
    for name, what, (mean, worst) in LOSSES:
        lost = [row[f"lost, {name}"] for row in rows if row[f"lost, {name}"] != "not run"]
        targets.append(common.target(f"{what}, mean over seeds", mean, statistics.fmean(lost)))
        targets.append(common.target(f"{what}, worst seed", worst, max(lost)))
        intervals[f"ci95 of the mean, {name}"] = t95(lost)
    conditions = {"seeds": sorted(reports), "recipe": "demo", "quick": quick, "threads of a run": 1}
    return common.result("main_job_seeds", conditions=conditions | intervals, rows=rows, targets=targets)


def _report(seed: int, out: Path, quick: bool) -> dict[str, Any]:
    """A seed's report, from a run that goes on where it was killed, or as it is where the run has ended."""
    kept = out / "report.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    store = out / "store"
    options = {"--store": store, "--seed": seed, "--threads": 1, "--out": out}
    command = [sys.executable, "-m", "mapsto", "run", "demo"]
    command += [str(part) for option in options.items() for part in option]
    subprocess.run(
        command + (["--quick"] if quick else []), check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(store)
    return json.loads(kept.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main("--quick" in sys.argv)
