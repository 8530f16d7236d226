"""A tree of classes as knowledge in self-training: CIFAR-100 with five labels a class, its twenty coarse classes, and a pool.

mapsto bench label_hierarchy

Embeddings of EfficientNet-Lite0 with its ImageNet weights at 112 pixels. Of 25 training images a class, five are labelled, drawn anew by
each seed, and the rest is the pool; tested on ten test images a class. All methods see the same images and fit the same kind of head.
`sure` was chosen on training images with other labels drawn, never on test images. ImageNet shares classes with CIFAR.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import numpy as np
from numpy.typing import NDArray

from mapsto import adapt, datasets, networks, semi
from mapsto.context import Numerics, SilentContext
from mapsto.data.io.sources import cifar100_files
from mapsto.kinds import Dataset
from mapsto.nn.adapt.features import features
from mapsto.nn.network.inference import forward
from mapsto.report.build import t95

SEEDS = (0, 1, 2)
IMAGES, LABELLED, TESTED = 25, 5, 10
"""A class: training images, how many of them are labelled, and test images."""
SURE = 0.8
POOL: dict[str, Any] = {"back_off": "never", "open_set": "keep"}
Hierarchy = dict[str, str]
WAYS: dict[str, Callable[[Dataset, Dataset, Hierarchy], Any]] = {
    "no pool, adapt.ridge": lambda few, pool, tree: adapt.ridge(data=few),
    "plain self-training, semi.propagation": lambda few, pool, tree: semi.propagation(
        data=few, unlabelled=pool, **POOL
    ),
    "hierarchy, classes alone": lambda few, pool, tree: semi.structured(
        data=few, unlabelled=pool, hierarchy=tree, **POOL
    ),
    "hierarchy, at the level that is sure": lambda few, pool, tree: semi.structured(
        data=few, unlabelled=pool, hierarchy=tree, sure=SURE, **POOL
    ),
}
PLAIN, LEVELS = "plain self-training, semi.propagation", "hierarchy, at the level that is sure"


def main(quick: bool = False) -> dict[str, Any]:
    sizes = (8, 3) if quick else (IMAGES, TESTED)
    classes = 10 if quick else 100
    known, test = (_embedded(part, count, classes) for part, count in zip(("train", "test"), sizes, strict=True))
    tree = coarse_classes()
    trials: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS[: 1 if quick else None]:
            few, pool = _stored(Path(folder), seed, *known)
            for name, way in WAYS.items():
                trials[name].append(_trial(way, few, pool, test, tree, seed))
                print(seed, name, trials[name][-1], flush=True)
    rows = [_row(name, found) for name, found in trials.items()]
    of = {row["method"]: row for row in rows}
    gain = of[LEVELS]["accuracy %"] - of[PLAIN]["accuracy %"]
    targets = [
        common.target("hierarchy at the level that is sure: points above plain self-training", ">= 0.5", gain),
        common.target(
            "hierarchy at the level that is sure: points of coarse classes above plain self-training",
            ">= 0.5",
            of[LEVELS]["coarse classes %"] - of[PLAIN]["coarse classes %"],
        ),
        common.target(
            "hierarchy at the level that is sure: points above no pool",
            ">= 1",
            of[LEVELS]["accuracy %"] - of["no pool, adapt.ridge"]["accuracy %"],
        ),
    ]
    conditions = {
        "labels a class": LABELLED,
        "pool": len(known[0]) - LABELLED * classes,
        "tested": len(test[0]),
        "sure": SURE,
    }
    return common.finished(
        common.result("label_hierarchy", conditions={**conditions, "quick": quick}, rows=rows, targets=targets),
        quick=quick,
    )


def coarse_classes() -> Hierarchy:
    """The coarse class of each class of CIFAR-100, by name."""
    records, names = cifar100_files("test")
    fine = names.read_text("utf-8").split()
    coarse = names.with_name("coarse_label_names.txt").read_text("utf-8").split()
    pairs = np.fromfile(records, dtype=np.uint8).reshape(-1, 3074)[:, :2]
    return {fine[place]: coarse[group] for group, place in pairs.tolist()}


def _embedded(
    split: Any, per_class: int, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[str, ...]]:
    """Embeddings (N, D), labels (N,) and the names of classes."""
    samples = datasets.cifar100(split=split).open()
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(samples.labels == label))[:per_class] for label in range(classes)]
    places = np.concatenate(chosen)
    ctx = SilentContext(seed=0, numerics=Numerics(threads=1))
    network = networks.efficientnet_lite0(size=112)(seed=0)
    return features(network, samples.inputs[places], ctx), samples.labels[places], samples.classes


def _stored(
    folder: Path, seed: int, rows: NDArray[Any], labels: NDArray[Any], classes: tuple[str, ...]
) -> list[Dataset]:
    """The labelled samples and the pool, as files."""
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == label))[:LABELLED] for label in np.unique(labels)]
    )
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    files: list[Dataset] = []
    for name, places in (("few", chosen), ("pool", rest)):
        file = folder / f"{name}_{seed}.npz"
        np.savez(file, inputs=rows[places], labels=np.array(classes)[labels[places]])
        files.append(datasets.arrays(file=str(file)))
    return files


def _trial(way: Any, few: Dataset, pool: Dataset, test: Any, tree: Hierarchy, seed: int) -> dict[str, float]:
    rows, labels, classes = test
    ctx = SilentContext(seed=seed, numerics=Numerics(threads=1))
    identity = ctx.apply(networks.mlp(inputs=rows.shape[1], widths=()), None)
    names = few.open().classes
    began = time.process_time()
    network = ctx.apply(way(few, pool, {name: tree[name] for name in names}), identity)
    seconds = time.process_time() - began
    scores = forward(network.module(), rows, network.signature.preprocessing).argmax(1).tolist()
    answers, wanted = [names[place] for place in scores], [classes[label] for label in labels]
    pairs = list(zip(answers, wanted, strict=True))
    return {
        "accuracy": 100 * statistics.mean(a == b for a, b in pairs),
        "coarse": 100 * statistics.mean(tree[a] == tree[b] for a, b in pairs),
        "CPU seconds": seconds,
    }


def _row(name: str, trials: list[dict[str, float]]) -> dict[str, Any]:
    found = [trial["accuracy"] for trial in trials]
    return {
        "method": name,
        "accuracy %": statistics.mean(found),
        "ci95 over seeds": t95(found) if len(found) > 1 else None,
        "coarse classes %": statistics.mean(trial["coarse"] for trial in trials),
        "CPU seconds": statistics.median(trial["CPU seconds"] for trial in trials),
        "seeds": len(trials),
    }


if __name__ == "__main__":
    main("--quick" in sys.argv)
