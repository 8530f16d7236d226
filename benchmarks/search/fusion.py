"""One search over augmentation, adaptation, pruning, distillation, quantization and the online learner, beside tuning each in turn.

mapsto bench fusion
mapsto bench fusion --seeds 0

The space is ``fusion.yaml``: the task of `mission` at 64 pixels, judged by accuracy on held-out images of the stream's new conditions after
the stream, and by bytes of the model's file. Both ways get the same number of trials of the same sampler. In turn, the trials are dealt to
the parts; while one is tuned the others stay as they were chosen (at first: off), and of its trials the smallest within a point of the most
accurate is taken on. All trials of a way count for its frontier. The hypervolume is the mean, over sizes up to the whole network's on a
logarithmic scale from 1 MB, of the best accuracy above chance that fits: by the images that the search saw, and by test images for the same
points. A seed draws what a recipe and its sampler draw. Trials are kept in ``$MAPSTO_BENCH/fusion``; the same command goes on.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import yaml

from mapsto import search
from mapsto.search.find import Observer
from mapsto.search.trials import Trial

SEEDS = (0, 1, 2)
TRIALS = 20
CHANCE, SMALLEST, LARGEST = 10.0, 1e6, 13.6e6
"""Accuracy (%) of guessing; bytes between which frontiers are compared: the whole network in float has 13.5 MB."""
WITHIN = 1.0
"""Points below the most accurate in which the smallest is taken on."""
PARTS: dict[str, tuple[str, ...]] = {
    "augmentation and adaptation": (
        "adapted",
        "adapt.finetune.epochs",
        "adapt.finetune.learning_rate",
        "adapt.finetune.augment",
    ),
    "pruning": ("pruned", "prune.magnitude.macs", "prune.magnitude.ranking"),
    "distillation": ("distilled.kept", "distilled.epochs", "distilled.temperature", "distilled.learning_rate"),
    "quantization": ("small",),
    "online learner": ("learnt", "online.softmax.rate"),
}
"""In the order in which they are tuned → their holes."""
DEALT = {"augmentation and adaptation": 6, "pruning": 5, "distillation": 4, "quantization": 2, "online learner": 3}
"""Trials of each part, of 20."""
BEFORE: dict[str, Any] = {
    "adapted": "linear", "pruned": "whole", "distilled.kept": False, "small": "float", "learnt": "ridge",
}  # fmt: skip
"""Where tuning in turn begins."""


class Said(Observer):
    """Prints each trial."""

    def __init__(self, way: str) -> None:
        self._way = way

    def ended(self, trial: Trial) -> None:
        print(
            f"{self._way}, trial {trial.number}: {trial.state} {trial.values} {dict(trial.holes)} {trial.error}",
            flush=True,
        )


def main(quick: bool = False, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with place(quick) as folder:
        for seed in SEEDS[:1] if quick else SEEDS if seeds is None else seeds:
            for way, run in (("one search", together), ("each in turn", in_turn)):
                trials = run(folder / f"seed_{seed}", seed, quick)
                rows.append({"seed": seed, "way": way, **figures(trials)})
    ran = {(row["seed"], row["way"]) for row in rows}
    rows += [
        {"seed": seed, "way": way, "trials": "not run"}
        for seed in (() if quick else SEEDS)
        for way in ("one search", "each in turn")
        if (seed, way) not in ran
    ]
    conditions = {"trials a way": TRIALS, "seeds": sorted({seed for seed, _ in ran}), "quick": quick}
    return common.finished(
        common.result("fusion", conditions=conditions, rows=rows, targets=[] if quick else targets(rows)), quick=quick
    )


@contextmanager
def place(quick: bool) -> Iterator[Path]:
    """Where trials are kept: not at all, where settings are quick."""
    if not quick:
        yield Path(os.environ.get("MAPSTO_BENCH", "runs/bench")) / "fusion"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def together(folder: Path, seed: int, quick: bool) -> list[Trial]:
    """The trials of one search over all holes."""
    return searched(tree_of(seed), folder, "one search", seed, 2 if quick else TRIALS, quick)


def in_turn(folder: Path, seed: int, quick: bool) -> list[Trial]:
    """The trials of a search over each part, with the others as they were chosen."""
    now, found = dict(BEFORE), list[Trial]()
    for part, holes in PARTS.items() if not quick else list(PARTS.items())[3:]:
        fixed = {name: value for name, value in now.items() if name not in holes}
        trials = searched(with_fixed(tree_of(seed), fixed), folder, part, seed, 1 if quick else DEALT[part], quick)
        taken = taken_on(trials)
        if taken is not None:
            now = {name: value for name, value in now.items() if name not in holes}
            now |= {name: value for name, value in taken.holes.items() if name in holes}
        found += trials
    return found


def searched(tree: dict[str, Any], folder: Path, name: str, seed: int, trials: int, quick: bool) -> list[Trial]:
    out = folder / name.replace(" ", "_")
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / "space.yaml"
    recipe.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    found = search.run(
        recipe, trials=trials, seed=seed, out=out, store=str(folder / "store"), threads=1, ablate=False, quick=quick, observer=Said(name)
    )  # fmt: skip
    return [trial for trial in found.trials if trial.state == "complete"]


def tree_of(seed: int) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "fusion.yaml").read_text(encoding="utf-8"))
    tree["seed"] = seed
    for name in ("labelled", "unlabelled", "pool", "later", "events"):
        tree["data"][name]["subset"]["seed"] = seed
    return tree


def with_fixed(tree: dict[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The space with some holes filled: what is chosen among has one option left, a step that is left out is gone."""
    steps: list[dict[str, Any]] = []
    for step in tree["steps"]:
        label = step.get("as", next(iter(step)))
        if f"{label}.kept" in fixed:
            if not fixed[f"{label}.kept"]:
                continue
            step.pop("optional")
        if label in fixed and "choice" in step:
            step["choice"] = {fixed[label]: step["choice"][fixed[label]]}
        for inner in [part for option in step.get("choice", {}).values() for part in option] or [step]:
            fill(inner, label if "choice" not in step else next(iter(inner)), fixed)
        steps.append(step)
    return {**tree, "steps": steps}


def fill(step: dict[str, Any], label: str, fixed: Mapping[str, Any]) -> None:
    fields = next(iter(step.values()))
    for name in fields if isinstance(fields, dict) else ():
        if f"{label}.{name}" in fixed:
            value = fixed[f"{label}.{name}"]
            fields[name] = yaml.safe_load(value) if isinstance(value, str) and value[:1] in "[{" else value


def taken_on(trials: Sequence[Trial]) -> Trial | None:
    best = max((trial.values[0] for trial in trials), default=0.0)
    near = [trial for trial in trials if trial.values[0] >= best - WITHIN]
    return min(near, key=lambda trial: (trial.values[1], -trial.values[0]), default=None)


def figures(trials: Sequence[Trial]) -> dict[str, Any]:
    points = [
        (trial.values[0], trial.values[1], float(trial.metrics["learnt.test.accuracy"]["value"])) for trial in trials
    ]
    front = [one for one in points if not any(o[0] >= one[0] and o[1] <= one[1] and o[:2] != one[:2] for o in points)]
    best = max(front, default=(0.0, 0.0, 0.0))
    return {
        "trials": len(trials),
        "points of the frontier": len(front),
        "hypervolume": hypervolume([(seen, size) for seen, size, _ in front]),
        "hypervolume on test images": hypervolume([(test, size) for _, size, test in front]),
        "best accuracy on test images %": best[2],
        "its bytes": best[1],
        "seconds": sum(trial.seconds for trial in trials),
        "steps from the store": sum(trial.hits for trial in trials),
    }


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """Mean over log-bytes of the best accuracy above chance that fits, as a share of all that could be.

    Of one point of accuracy 55 % with the fewest bytes it is 0.5.
    """
    sizes = sorted((min(max(size, SMALLEST), LARGEST), accuracy) for accuracy, size in points)
    area = best = 0.0
    for number, (size, accuracy) in enumerate(sizes):
        best = max(best, accuracy - CHANCE)
        end = sizes[number + 1][0] if number + 1 < len(sizes) else LARGEST
        area += best * math.log(end / size)
    return area / ((100 - CHANCE) * math.log(LARGEST / SMALLEST))


def targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def mean(name: str) -> float | None:
        pairs = [
            [row[name] for row in rows if row["seed"] == seed and name in row] for seed in {row["seed"] for row in rows}
        ]
        gains = [one / other for one, other in (pair for pair in pairs if len(pair) == 2) if other]
        return sum(gains) / len(gains) if len(gains) == len(SEEDS) else None

    return [
        common.target("hypervolume of one search, times that of tuning in turn, three seeds", "> 1", mean("hypervolume")),
        common.target(
            "the same on test images, three seeds", "> 1", mean("hypervolume on test images")
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
