"""Remedies against over-fitting a few labels, each alone and all together: the gap between training and test accuracy.

mapsto bench overfit
mapsto bench overfit --only together --seeds 0,1

EfficientNet-Lite0 with its ImageNet weights (extra `vision`) is fine-tuned whole by `adapt.finetune` to CIFAR-10 with 5 and 50 labels a
class, at 64 pixels so that it is affordable. "plain" is Adam from the class means as head until the training loss stalls; a remedy alone
changes one thing of it. What a training came to is kept in ``benchmarks/results/trials``, and the same command goes on there; what was not
run says so.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import torch

from mapsto import adapt, augment, datasets, networks
from mapsto.context import Context, Numerics
from mapsto.errors import MapstoError
from mapsto.kinds import Dataset, Network, Samples
from mapsto.nn.network.inference import forward
from mapsto.report.build import t95

SIZE = 64
"""Pixels."""
LABELS = {5: 30, 50: 6}
"""Labels a class → the most epochs."""
TEST = 100
"""Test images of a class."""
SEEDS = range(3)
PLAIN: dict[str, Any] = {"begin": "centroid", "folds": None, "weight_decay": 0.0}
PICTURES = (augment.flip(), augment.crop(padding=4), augment.randaugment())
REMEDIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear probe first": {"begin": "probe"},
    "augmentation": {"augment": PICTURES},
    "weight decay": {"weight_decay": 1e-2, "optimizer": "adamw"},
    "dropout": {"dropout": 0.5},
    "L2-SP": {"l2_sp": 0.1},
    "label smoothing": {"smoothing": 0.1},
    "layer-wise rates": {"layer_decay": 0.75},
    "gradual unfreezing": {"unfreeze": 1},
    "adversarial training": {"adversarial": 2 / 255},
    "low-rank adapters": {"freeze": "weights"},
    "only the head": {"freeze": "embedding"},
    "stopped by folds": {"folds": 3},
}
TOGETHER = "all together"
ALL: dict[str, Any] = {
    "begin": "probe",
    "folds": 3,
    "augment": PICTURES,
    "dropout": 0.5,
    "l2_sp": 0.1,
    "smoothing": 0.1,
    "layer_decay": 0.75,
}
"""Without what excludes another: L2-SP takes the place of weight decay, layer-wise rates that of unfreezing and of adapters."""


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "overfit.json"
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    ways = {**REMEDIES, TOGETHER: ALL}
    first = ("plain", TOGETHER)
    for seed in seeds or (SEEDS[:1] if quick else SEEDS):
        for name in sorted(ways, key=lambda name: name not in first):
            for labels in LABELS:
                place = f"{labels} labels, seed {seed}"
                hurried = quick and (labels > 5 or name not in (*first, "low-rank adapters"))
                if only in name and not hurried and place not in kept.setdefault(name, {}):
                    kept[name][place] = trial({**PLAIN, **ways[name]}, labels, seed, quick=quick)
                    print(name, place, kept[name][place], flush=True)
                    if not quick:
                        file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    rows = [row_of(name, labels, kept.get(name, {})) for labels in LABELS for name in ways]
    tree = common.result(
        "overfit",
        conditions={
            "data": "scikit-learn's digits" if quick else f"CIFAR-10 at {SIZE} pixels",
            "test images": 10 * TEST,
            "epochs at most": {str(labels): epochs for labels, epochs in LABELS.items()},
            "plain": {name: str(value) for name, value in PLAIN.items()},
            "quick": quick,
        },
        rows=rows,
        targets=[goal for labels in LABELS for goal in goals(rows, labels)],
    )
    return common.finished(tree, quick=quick)


def trial(fields: Mapping[str, Any], labels: int, seed: int, *, quick: bool) -> dict[str, Any]:
    """Accuracy and loss on the training examples and on the test images, and the time that it took."""
    train, test = (digits if quick else cifar)(labels, seed)
    value = networks.conv4(data=train, width=8)(seed=0) if quick else networks.efficientnet_lite0(size=SIZE)(seed=0)
    process = adapt.finetune(data=train, epochs=2 if quick else LABELS[labels], **fields)
    began = time.process_time()
    try:
        if fields.get("freeze") == "weights":
            value = adapt.lora(rank=4)(value)
        result = Context(seed=seed, numerics=Numerics(threads=1)).apply(process, value)
    except MapstoError as error:
        return {"not run": error.what}
    spent = time.process_time() - began
    return {
        **{f"train {name}": figure for name, figure in figures(result, train.open()).items()},
        **{f"test {name}": figure for name, figure in figures(result, test).items()},
        "CPU s": round(spent, 1),
    }


def figures(value: Network, samples: Samples) -> dict[str, float]:
    outputs = forward(value.module(), samples.inputs, value.signature.preprocessing)
    labels = torch.as_tensor(samples.labels)
    loss = torch.nn.functional.cross_entropy(outputs, labels)
    return {"accuracy": 100 * float((outputs.argmax(1) == labels).double().mean()), "loss": float(loss)}


def cifar(labels: int, seed: int) -> tuple[Dataset, Samples]:
    train = datasets.subset(data=datasets.cifar10(split="train"), per_class=labels, seed=seed)
    return train, datasets.subset(data=datasets.cifar10(split="test"), per_class=TEST).open()


def digits(labels: int, seed: int) -> tuple[Dataset, Samples]:
    whole = datasets.digits(size=16)
    rest = datasets.subset(data=datasets.subset(data=whole, per_class=50, seed=seed, part="rest"), per_class=10)
    return datasets.subset(data=whole, per_class=labels, seed=seed), rest.open()


def row_of(name: str, labels: int, kept: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A remedy's figures over seeds."""
    trials = [each for place, each in kept.items() if place.startswith(f"{labels} labels,")]
    row: dict[str, Any] = {"labels a class": labels, "remedy": name}
    if not trials or "not run" in trials[0]:
        reason = f": {trials[0]['not run']}" if trials else ""
        return row | {"test accuracy": f"not run{reason}", "seeds": 0}
    means = {figure: statistics.mean(each[figure] for each in trials) for figure in trials[0]}
    return row | {
        "train accuracy": means["train accuracy"],
        "test accuracy": means["test accuracy"],
        "ci95 over seeds": t95([each["test accuracy"] for each in trials]),
        "gap": means["train accuracy"] - means["test accuracy"],
        "train loss": means["train loss"],
        "test loss": means["test loss"],
        "gap of the loss": means["test loss"] - means["train loss"],
        "CPU s": means["CPU s"],
        "seeds": len(trials),
    }


def goals(rows: Sequence[Mapping[str, Any]], labels: int) -> list[dict[str, Any]]:
    """All together against plain: gaps, as shares of plain's, and test accuracy, in points."""
    known = {row["remedy"]: row for row in rows if row["labels a class"] == labels and row["seeds"]}
    plain, together = known.get("plain"), known.get(TOGETHER)

    def compared(figure: str, *, ratio: bool) -> float | None:
        if plain is None or together is None:
            return None
        return together[figure] / plain[figure] if ratio else together[figure] - plain[figure]

    return [
        common.target(f"{labels} labels: gap of all together, of plain's", "<= 0.5", compared("gap", ratio=True)),
        common.target(
            f"{labels} labels: gap of the loss, of plain's", "<= 0.5", compared("gap of the loss", ratio=True)
        ),
        common.target(
            f"{labels} labels: test accuracy of all together above plain's",
            ">= 0",
            compared("test accuracy", ratio=False),
        ),
    ]


if __name__ == "__main__":
    main("--quick" in sys.argv)
