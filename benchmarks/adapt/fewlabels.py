"""One, five and twenty labels a class: every head on a frozen encoder, with a pool of unlabelled images and without, and what mapsto picks.

mapsto bench fewlabels
mapsto bench fewlabels --seeds 0

EfficientNet-Lite0 with its ImageNet weights (extra `vision`) embeds a part of CIFAR-10 and of CIFAR-100 at 112 pixels, once; the
embeddings are kept in the cache folder. A draw takes the labelled images and the pool from the training images; all draws are judged on
the same test images. What each draw came to is kept in ``benchmarks/results/trials``, and the same command goes on there.

The probe is scikit-learn's logistic regression on embeddings of length 1: with C = 10, and with the C that is best by cross-validation
on the labelled images. The pick is that of `mapsto.nn.adapt.choice_of_head`, which sees the labelled images and the pool alone.
Penalties, scales and the order of the ways were chosen on training images of 30 classes of CIFAR-100, in tasks of ten classes and of 30;
none on a test image; that another way has to be better by three standard errors, not two, was decided after a draw of CIFAR-10.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import numpy as np
from numpy.typing import NDArray

from mapsto import datasets, networks
from mapsto.context import Context, Numerics
from mapsto.data.io.download import locate
from mapsto.kinds import Samples
from mapsto.nn.adapt import logistic
from mapsto.nn.adapt.choice_of_head import WAYS, choose
from mapsto.nn.adapt.cross_validation import folds_of, log_loss, out_of_fold
from mapsto.nn.adapt.features import features
from mapsto.nn.semi.ways import ALL_WAYS
from mapsto.report.build import t95

DRAWS = range(10)
Rows = NDArray[np.float32]
Labels = NDArray[np.int64]
CELLS: dict[str, dict[str, int]] = {
    "CIFAR-10, 1 label": {"classes": 10, "labels": 1, "pool": 250},
    "CIFAR-10, 5 labels": {"classes": 10, "labels": 5, "pool": 250},
    "CIFAR-10, 20 labels": {"classes": 10, "labels": 20, "pool": 250},
    "CIFAR-100, 5 labels": {"classes": 100, "labels": 5, "pool": 25},
}
EMBEDDED = {10: {"train": 600, "test": 300}, 100: {"train": 60, "test": 20}}
"""Images of a class."""
PROBES = ("probe, C = 10", "probe, C tuned")
PICKS = {False: "our pick", True: "our pick with the pool"}
HEADS = (*PROBES, *(way.name for way in WAYS), PICKS[False])
WITH_POOL = (*(way.name for way in ALL_WAYS if way.pool), PICKS[True])
TUNED = ("fine-tuned",)
"""Rows of other commands: trials of that name are shown where they are in the file."""
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "fewlabels.json"
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    if file.is_file() and not quick:
        kept = json.loads(file.read_text("utf-8"))
    cells = {name: cell for name, cell in CELLS.items() if only in name and not (quick and cell["classes"] > 10)}
    numbers = {cell["classes"] for cell in cells.values()}
    data = {classes: clustered() if quick else embedded(classes) for classes in sorted(numbers)}
    for draw in seeds or (DRAWS[:1] if quick else DRAWS):
        for name, cell in cells.items():
            if str(draw) not in kept.setdefault(name, {}):
                kept[name][str(draw)] = trial(data[cell["classes"]], cell, draw)
                print(name, draw, kept[name][str(draw)], flush=True)
                if not quick:
                    file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    rows = [row_of(name, cells, kept) for name in (*HEADS, *WITH_POOL, *TUNED)]
    tree = common.result(
        "fewlabels",
        conditions={
            "encoder": "EfficientNet-Lite0, ImageNet weights, 112 pixels",
            "test images": {"CIFAR-10": 3000, "CIFAR-100": 2000},
            "pool": {"CIFAR-10": 2500, "CIFAR-100": 2500},
            "draws": {name: len(kept.get(name, {})) for name in cells},
            "quick": quick,
        },
        rows=rows,
        targets=targets(cells, kept),
    )
    return common.finished(tree, quick=quick)


def targets(cells: Mapping[str, Any], kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    five = "CIFAR-10, 5 labels"

    def mean(cell: str, way: str) -> float | None:
        found = [each["accuracy"][way] for each in kept.get(cell, {}).values() if way in each["accuracy"]]
        return statistics.mean(found) if found else None

    def above(cell: str, way: str, others: Sequence[str]) -> float | None:
        own, best = mean(cell, way), [each for other in others if (each := mean(cell, other)) is not None]
        return own - max(best) if own is not None and best else None

    found = [
        common.target("5 labels: our pick, points above the best probe", ">= 1.5", above(five, PICKS[False], PROBES)),
        common.target(
            "5 labels with a pool: our pick, points above the best probe", ">= 6", above(five, PICKS[True], PROBES)
        ),
    ]
    for cell in cells:
        single = [name for name in HEADS if name not in PICKS.values()]
        pool = [*single, *(name for name in WITH_POOL if name not in PICKS.values())]
        found.append(
            common.target(
                f"{cell}: our pick, points above the best single way", ">= -0.5", above(cell, PICKS[False], single)
            )
        )
        found.append(
            common.target(
                f"{cell}: our pick with the pool, points above the best single way",
                ">= -0.5",
                above(cell, PICKS[True], pool),
            )
        )
    return found


def row_of(way: str, cells: Mapping[str, Any], kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A way's accuracy in percent in every cell, with the half width of its interval over draws."""
    row: dict[str, Any] = {"way": way}
    spent: list[float] = []
    for cell in cells:
        trials = [each for each in kept.get(cell, {}).values() if way in each["accuracy"]]
        found = [each["accuracy"][way] for each in trials]
        spent += [each["seconds"][way] for each in trials]
        row[cell] = f"{statistics.mean(found):.1f} ± {t95(found):.1f}" if len(found) > 1 else "not run"
        if len(found) == 1:
            row[cell] = f"{found[0]:.1f}"
    row["CPU s"] = round(statistics.median(spent), 3) if spent else "not run"
    return row


# --------------------------------------------------------------------------------------------------------------------- a draw


def trial(data: Mapping[str, tuple[Rows, Labels]], cell: Mapping[str, int], draw: int) -> dict[str, Any]:
    """The accuracy of every way in percent, its CPU seconds, and what was picked."""
    (rows, numbers), (asked, truth) = data["train"], data["test"]
    rng = np.random.default_rng([draw, cell["labels"], cell["classes"]])
    order = [rng.permutation(np.flatnonzero(numbers == label)) for label in range(cell["classes"])]
    few = np.concatenate([each[: cell["labels"]] for each in order])
    rest = np.concatenate([each[cell["labels"] :][: cell["pool"]] for each in order])
    known, labels, pool, classes = rows[few], numbers[few], rows[rest], cell["classes"]
    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def judged(name: str, make: Callable[[], Callable[[Rows], NDArray[Any]]]) -> Any:
        began = time.process_time()
        head = make()
        seconds[name] = round(time.process_time() - began, 4)
        accuracy[name] = round(100 * float((head(asked).argmax(1) == truth).mean()), 3)
        return head

    judged(PROBES[0], lambda: probe(known, labels, classes, 10.0))
    judged(PROBES[1], lambda: probe(known, labels, classes, tuned(known, labels, classes, draw)))
    for way in ALL_WAYS:
        judged(way.name, lambda way=way: way.prepare(known, labels, pool, classes)(np.arange(len(labels))))
    picks: dict[str, Any] = {}
    for with_pool, name in PICKS.items():
        ways = ALL_WAYS if with_pool else WAYS

        def pick(ways: Any = ways, name: str = name, given: Rows | None = pool if with_pool else None) -> Any:
            choice = choose(known, labels, classes, np.random.default_rng(draw), ways=ways, pool=given)
            picks[name] = {
                "way": choice.picked.name,
                "cross-validated": {each.name: _percent(each.accuracy) for each in choice.judged},
            }
            return choice.head(len(labels))

        judged(name, pick)
    return {"accuracy": accuracy, "seconds": seconds, "picks": picks}


def _percent(share: float) -> float | None:
    return None if share != share else round(100 * share, 2)  # noqa: PLR0124 - NaN


def probe(rows: Rows, labels: Labels, classes: int, strength: float) -> Callable[[Rows], NDArray[Any]]:
    weight, bias = logistic.fit(logistic.normalised(rows), labels, classes, strength=strength, standardize=False)
    return lambda asked: logistic.normalised(asked) @ weight.T + bias


def tuned(rows: Rows, labels: Labels, classes: int, draw: int) -> float:
    """The C with the least cross-validated log-loss; 10 with one label a class."""
    unit = logistic.normalised(rows)
    fold = folds_of(labels, max(2, min(5, int(np.bincount(labels).max()))), np.random.default_rng(draw))
    if not (fold >= 0).any():
        return 10.0

    def loss(strength: float) -> float:
        def fit(x: Any, y: Any) -> Any:
            return logistic.fit(x, y, classes, strength=strength, standardize=False)

        return log_loss(out_of_fold(fit, unit, labels, fold), labels)

    return min(STRENGTHS, key=loss)


# ------------------------------------------------------------------------------------------------------------------ embeddings


def embedded(classes: int) -> dict[str, tuple[Rows, Labels]]:
    """Embeddings (N, 1280) and labels of the images of each split, drawn class by class."""
    data = {10: datasets.cifar10, 100: datasets.cifar100}[classes]
    locate(f"cifar-{classes}-{'batches-bin' if classes == 10 else 'binary'}", what=f"CIFAR-{classes}")
    ctx = Context(numerics=Numerics(threads=1))
    network = ctx.apply(networks.efficientnet_lite0(size=112), None)
    found: dict[str, tuple[Rows, Labels]] = {}
    for split, count in EMBEDDED[classes].items():
        samples: Samples = data(split=split).open()  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        chosen = [rng.permutation(np.flatnonzero(samples.labels == label))[:count] for label in range(classes)]
        part = samples.take(np.concatenate(chosen))
        found[split] = np.asarray(features(network, part.inputs, ctx)), part.labels.astype(np.int64)
        print(f"CIFAR-{classes} {split}: {len(part)} embeddings", flush=True)
    return found


def clustered() -> dict[str, tuple[Rows, Labels]]:
    """Ten classes that are quickly there, in place of embeddings."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 24))

    def drawn(count: int) -> tuple[Rows, Labels]:
        labels = np.repeat(np.arange(10), count)
        noise = rng.normal(size=(len(labels), 24))
        return np.abs(means[labels] + noise).astype(np.float32), labels

    return {"train": drawn(60), "test": drawn(20)}
