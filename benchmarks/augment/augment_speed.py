"""Images a second and thread that augmentation takes, beside kornia 0.9 and albumentations 2.0.8: bytes in, every image drawn by itself.

mapsto bench augment_speed
mapsto bench augment_speed --only RandAugment

All sides are in one process (`_worker.py`), on one thread and the same PyTorch, take the same images and have their turn in every round;
what counts is CPU seconds of the thread. kornia is given floats, whose conversion is not counted, and draws the operations of a policy once
a batch; its loop over images is beside it. albumentations takes images one by one, and has no RandAugment: two of the same operations are
drawn by its `SomeOf`. Flip and crop are also measured as mapsto had them before native code (`_former.py`).
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
from _environments import PINS, NotRunError, python_of_peers

SIZES = (32, 224)
ROUNDS = 7
BATCH, FORMER, LOOP = "kornia, drawn per batch", "mapsto before", "kornia, per image"
POLICIES = ("RandAugment", "TrivialAugment", "AugMix", "flip and crop")
GOALS = (
    (32, "RandAugment", BATCH, ">= 3"),
    (224, "RandAugment", BATCH, ">= 3"),
    (32, "RandAugment", LOOP, ">= 50"),
    (224, "RandAugment", LOOP, ">= 5"),
    (32, "flip and crop", FORMER, ">= 4"),
    (224, "flip and crop", FORMER, ">= 4"),
)


def main(quick: bool, only: str = "") -> dict[str, Any]:
    rounds = 2 if quick else ROUNDS
    try:
        python, why = python_of_peers(), ""
    except NotRunError as error:
        python, why = None, str(error)
        print(f"not run: {why}")
    names = ["RandAugment", "flip and crop"] if quick and not only else [only] if only else []
    found = {size: measured(python, size, rounds, names) for size in SIZES} if python else {}
    rows = [row for size, cases in found.items() for row in rows_of(size, cases)]
    conditions = {
        "threads": 1,
        "rounds": rounds,
        "peers": ", ".join(PINS),
        "images": "batches of 128 of 3 x 32 x 32 and of 32 of 3 x 224 x 224 bytes; kornia: floats, their conversion not counted",
        "rate": "images a CPU second of the thread, median of the rounds; ratios by round, smallest and largest beside the median",
        "RandAugment": "2 operations of magnitude 9 of 30",
        **({"not run": why} if why else {}),
    }
    targets = [goal(found.get(size, {}), size, *rest) for size, *rest in GOALS]
    tree = common.result("augment_speed", conditions=conditions, rows=rows, targets=targets)
    return common.finished(tree, quick=quick or bool(only))


def measured(python: Path, size: int, rounds: int, names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Case → side → images a second, round by round."""
    here = Path(__file__).parent
    source = here.parents[1]
    path = os.pathsep.join((str(source / "src"), str(source / "runtime" / "src")))
    done = subprocess.run(
        [python, "-W", "ignore", here / "_worker.py", str(size), str(rounds), *names],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"the worker failed: {done.stderr.strip()[-2000:]}")
    lines = [json.loads(line.removeprefix("FOUND ")) for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return {line["operation"]: line["rates"] for line in lines}


def rows_of(size: int, cases: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """A row for each case, and one for the geometric mean over single operations."""
    rows: list[dict[str, Any]] = []
    singles: dict[str, list[list[float]]] = {}
    for name, rates in cases.items():
        row: dict[str, Any] = {"augmentation": name, "px": size, "images a second": statistics.median(rates["mapsto"])}
        for side in ("mapsto before", BATCH, LOOP, "albumentations"):
            ratios = by_round(rates, side)
            row[f"times {side}"] = spread(ratios)
            if ratios and name not in POLICIES:
                singles.setdefault(side, []).append(ratios)
        rows.append(row)
    if singles:
        means = {
            side: [math.exp(statistics.mean(map(math.log, each))) for each in zip(*ratios, strict=True)]
            for side, ratios in singles.items()
        }
        count = len(next(iter(singles.values())))
        rates = [cases[name]["mapsto"] for name in cases if name not in POLICIES]
        row = {
            "augmentation": f"mean of {count} operations",
            "px": size,
            "images a second": math.exp(statistics.mean(math.log(statistics.median(each)) for each in rates)),
        }
        sides = ("mapsto before", BATCH, LOOP, "albumentations")
        rows.append(row | {f"times {side}": spread(means.get(side, [])) for side in sides})
    return rows


def by_round(rates: dict[str, list[float]], side: str) -> list[float]:
    return [own / theirs for own, theirs in zip(rates["mapsto"], rates.get(side, ()), strict=False)]


def spread(ratios: list[float]) -> str | None:
    """Median, smallest and largest, in a cell."""
    if not ratios:
        return None
    low, middle, high = (f"{each:.3g}" for each in (min(ratios), statistics.median(ratios), max(ratios)))
    return f"{middle} ({low} – {high})"


def goal(cases: dict[str, dict[str, list[float]]], size: int, name: str, side: str, bound: str) -> dict[str, Any]:
    ratios = by_round(cases[name], side) if name in cases else []
    what = f"{name} at {size} px: times the images a second of {side}"
    return common.target(what, bound, statistics.median(ratios) if ratios else None)


if __name__ == "__main__":
    main("--quick" in sys.argv)
