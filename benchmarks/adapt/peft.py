"""Few parameters or all: the ways of parameter-efficient tuning beside a linear head and full fine-tuning, at 5 and 20 labels a class.

mapsto bench peft
mapsto bench peft --only MiniLM --seeds 0

EfficientNet-Lite0 (ImageNet weights, extra `vision`) on CIFAR-10 at 64 pixels, and MiniLM (extra `text`) on 20 intents of Banking77. Each
way adds what it trains (`adapt.lora` …), `adapt.finetune` trains that and the head for the same number of epochs from the same probe, and
`adapt.merge` folds it away before the test images or texts are answered. The learning rate of a way is the one that is best on
held-out samples of the training part, with 5 labels, draw 0, of up to five, until there is a worse one on either side; the test part
chooses nothing. What a trial came to is kept in ``benchmarks/results/trials``, and the same command goes on there, until the trials have
taken 75 CPU minutes; what was not run says so.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import torch

from mapsto import adapt, datasets, networks
from mapsto.context import Context, Numerics
from mapsto.data.io.download import locate
from mapsto.errors import MapstoError
from mapsto.kinds import Dataset, Network
from mapsto.nn.edits._adapted_layer import adapter_parameters
from mapsto.nn.network.inference import forward
from mapsto.report.build import t95

LABELS = (5, 20)
"""Labels a class."""
DRAWS = (0, 1, 2)
EPOCHS, BATCH = 10, 16
SIZE = 64
"""Pixels of the images."""
INTENTS = 20
"""Of Banking77's 77, the first by name."""
HELD, TEST = 30, 100
"""Held-out images and test images of a class; of texts half as many are held out, and all of these intents are tested."""
BUDGET = 75 * 60
"""CPU seconds."""
HEAD, ALL = "linear head, all else frozen", "full fine-tuning"
ADDED: dict[str, Callable[[], Any]] = {
    "BitFit": adapt.bitfit,
    "LoRA, rank 4": adapt.lora,
    "DoRA, rank 4": adapt.dora,
    "IA3": adapt.ia3,
    "scale and shift": adapt.ssf,
    "bottleneck adapters": adapt.adapters,
    "prompts": adapt.prompts,
}
WAYS = (HEAD, ALL, *ADDED)
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FIRST = {ALL: (1e-4, 3e-4)}
OTHERS = (1e-3, 3e-3)
"""The two rates that are tried first; while the best so far has none beside it that is worse, the next one is."""
MOST_RATES = 5
Trials = dict[str, dict[str, Any]]


@dataclass
class Subject:
    """A pretrained network and its data."""

    network: Network
    train: Callable[[int, int], Dataset]
    """Labels a class, draw → the labelled samples."""
    held: Dataset
    """Of the training part, in no draw."""
    test: Dataset
    prompts: bool
    """Whether it has tokens."""


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "peft.json"
    kept: Trials = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    with _subjects(quick, only) as subjects:
        for name, way, labels, draw in _order(subjects, seeds or (DRAWS[:1] if quick else DRAWS), quick):
            subject = subjects[name]
            while way != HEAD and (rate := _untried(kept, name, way, quick)) is not None:
                key = f"{name}, {way}, rate {rate:g}"
                _keep(kept, key, file, quick, partial(_chosen_by, subject, way, rate, quick))
                if key not in kept:
                    break
            rate = _rate(kept, name, way)
            if way == HEAD or rate is not None:
                trial = partial(_trial, subject, way, labels, draw, rate, quick)
                _keep(kept, f"{name}, {way}, {labels} labels, draw {draw}", file, quick, trial)
    return common.finished(_tree(kept, quick), quick=quick)


def _keep(kept: Trials, key: str, file: Path, quick: bool, trial: Callable[[], dict[str, Any]]) -> None:
    """Run a trial that was not, while there is time."""
    if key in kept or sum(each["CPU s in all"] for each in kept.values()) > BUDGET:
        return
    began = time.process_time()
    kept[key] = trial()
    kept[key]["CPU s in all"] = round(time.process_time() - began, 1)
    print(key, kept[key], flush=True)
    if not quick:
        file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")


def _order(subjects: Mapping[str, Subject], draws: Sequence[int], quick: bool) -> Iterator[tuple[str, str, int, int]]:
    """Trials, those first that say most."""
    for draw in draws:
        for labels in LABELS[: 1 if quick else None]:
            for name, subject in subjects.items():
                for way in WAYS:
                    if way != "prompts" or subject.prompts:
                        yield name, way, labels, draw


# ----------------------------------------------------------------------------------------------------------------- data


@contextmanager
def _subjects(quick: bool, only: str) -> Iterator[dict[str, Subject]]:
    made: dict[str, Callable[[Path], Subject]] = (
        {"small ViT": lambda folder: _digits()}
        if quick
        else {"EfficientNet-Lite0": lambda folder: _images(), "MiniLM": _texts}
    )
    with tempfile.TemporaryDirectory() as folder:
        yield {name: make(Path(folder)) for name, make in made.items() if only in name}


def _digits() -> Subject:
    whole = datasets.digits(size=16)
    rest = datasets.subset(data=whole, per_class=60, part="rest")

    def train(labels: int, draw: int) -> Dataset:
        return datasets.subset(data=datasets.subset(data=whole, per_class=60), per_class=labels, seed=draw)

    network = networks.vit(data=whole, patch=4, depth=1, width=8, heads=2)(seed=0)
    held, test = (datasets.subset(data=rest, per_class=10, part=part) for part in ("chosen", "rest"))
    return Subject(network, train, held, test, prompts=True)


def _images() -> Subject:
    whole = datasets.cifar10(split="train")
    held = datasets.subset(data=whole, per_class=HELD, seed=1000)
    others = datasets.subset(data=whole, per_class=HELD, seed=1000, part="rest")
    return Subject(
        networks.efficientnet_lite0(size=SIZE)(seed=0),
        lambda labels, draw: datasets.subset(data=others, per_class=labels, seed=draw),
        held,
        datasets.subset(data=datasets.cifar10(split="test"), per_class=TEST),
        prompts=False,
    )


def _texts(folder: Path) -> Subject:
    rows: dict[str, list[tuple[str, str]]] = {}
    for part in ("train", "test"):
        with locate(f"text/banking77_{part}.csv", what="Banking77").open(encoding="utf-8", newline="") as lines:
            rows[part] = [(row["text"], row["category"]) for row in csv.DictReader(lines)]
    intents = sorted({intent for _, intent in rows["train"]})[:INTENTS]

    def written(part: str) -> Dataset:
        file = folder / f"{part}.csv"
        with file.open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines).writerows([("text", "intent"), *(row for row in rows[part] if row[1] in intents)])
        return datasets.text(file=str(file), target="intent")

    whole, test = written("train"), written("test")
    held = datasets.subset(data=whole, per_class=HELD // 2, seed=1000)
    others = datasets.subset(data=whole, per_class=HELD // 2, seed=1000, part="rest")
    return Subject(
        networks.minilm()(seed=0),
        lambda labels, draw: datasets.subset(data=others, per_class=labels, seed=draw),
        held,
        test,
        prompts=True,
    )


# --------------------------------------------------------------------------------------------------------------- trials


def _untried(kept: Trials, name: str, way: str, quick: bool) -> float | None:
    """The rate to try next; None where the best one has a worse one on either side."""
    first = FIRST.get(way, OTHERS)[: 1 if quick else 2]
    tried = [rate for rate in RATES if f"{name}, {way}, rate {rate:g}" in kept]
    missing = [rate for rate in first if rate not in tried]
    best = _rate(kept, name, way)
    if missing or best is None or quick or len(tried) >= MOST_RATES:
        return missing[0] if missing else None
    place = RATES.index(best)
    beside = [each for each in (place - 1, place + 1) if 0 <= each < len(RATES) and RATES[each] not in tried]
    return RATES[beside[0]] if beside else None


def _rate(kept: Trials, name: str, way: str) -> float | None:
    """The rate that is best on held-out samples, by accuracy and then by loss; None where none was tried."""
    tried = {rate: each for rate in RATES if (each := kept.get(f"{name}, {way}, rate {rate:g}"))}
    tried = {rate: each for rate, each in tried.items() if "not run" not in each}
    return max(tried, key=lambda rate: (tried[rate]["accuracy"], -tried[rate]["loss"])) if tried else None


def _chosen_by(subject: Subject, way: str, rate: float, quick: bool) -> dict[str, Any]:
    try:
        made, _ = _tuned(subject, way, subject.train(LABELS[0], DRAWS[0]), DRAWS[0], rate, quick)
    except MapstoError as error:
        return {"not run": error.what}
    return _figures(made, subject.held)


def _trial(subject: Subject, way: str, labels: int, draw: int, rate: float | None, quick: bool) -> dict[str, Any]:
    """Accuracy and loss on the test samples, numbers trained, numbers that stay beside the network's, and CPU seconds of learning."""
    data = subject.train(labels, draw)
    began = time.process_time()
    try:
        made, trained = _tuned(subject, way, data, draw, rate, quick)
        spent = time.process_time() - began
    except MapstoError as error:
        return {"not run": error.what}
    stay = sum(
        t.numel()
        for name, t in made.tensors.items()
        if name not in subject.network.tensors and "classifier" not in name
    )
    return {**_figures(made, subject.test), "trained": trained, "stay": stay, "CPU s": round(spent, 1), "rate": rate}


def _tuned(
    subject: Subject, way: str, data: Dataset, draw: int, rate: float | None, quick: bool
) -> tuple[Network, int]:
    """The network, merged, and how many numbers were trained."""
    ctx = Context(seed=draw, numerics=Numerics(threads=1))
    if way == HEAD:
        made = ctx.apply(adapt.linear(data=data), subject.network)
        return made, _numbers(made, lambda name: name.startswith("classifier."))
    value = subject.network if way == ALL else ctx.apply(ADDED[way](), subject.network)
    process = adapt.finetune(
        data=data,
        freeze="none" if way == ALL else "weights",
        folds=None,
        epochs=1 if quick else EPOCHS,
        batch_size=BATCH,
        learning_rate=rate or 1e-3,
        schedule="cosine",
        stop_after=EPOCHS,
    )
    made = ctx.apply(process, value)
    module = made.module()
    names = {name for name, _ in module.named_parameters()} if way == ALL else set(adapter_parameters(module))
    trained = _numbers(made, lambda name: name in names or name.startswith("classifier."))
    return ctx.apply(adapt.merge(), made), trained


def _numbers(network: Network, wanted: Callable[[str], bool]) -> int:
    return sum(tensor.numel() for name, tensor in network.tensors.items() if wanted(name))


def _figures(made: Network, data: Dataset) -> dict[str, float]:
    samples = data.open()
    outputs = forward(made.module(), samples.inputs, made.signature.preprocessing)
    known = list(made.signature.classes or samples.classes)
    labels = torch.as_tensor(samples.labels)
    outputs = outputs[:, torch.as_tensor([known.index(name) for name in samples.classes])]
    loss = torch.nn.functional.cross_entropy(outputs, labels)
    return {"accuracy": 100 * float((outputs.argmax(1) == labels).double().mean()), "loss": float(loss)}


# --------------------------------------------------------------------------------------------------------------- result


def _tree(kept: Trials, quick: bool) -> dict[str, Any]:
    names = ("small ViT",) if quick else ("EfficientNet-Lite0", "MiniLM")
    rows = [
        _row(kept, name, way, labels)
        for name in names
        for labels in LABELS
        for way in WAYS
        if way != "prompts" or name != "EfficientNet-Lite0"  # which has no tokens
    ]
    return common.result(
        "peft",
        conditions={
            "data": "scikit-learn's digits" if quick else f"CIFAR-10 at {SIZE} pixels; {INTENTS} intents of Banking77",
            "epochs": EPOCHS,
            "batch": BATCH,
            "optimizer": "Adam, cosine, from a probe; batch norms keep their statistics",
            "rates to choose from": RATES,
            "CPU s in all": sum(each["CPU s in all"] for each in kept.values()),
            "quick": quick,
        },
        rows=rows,
        targets=[goal for name in names for labels in LABELS for goal in _goals(kept, rows, name, labels)],
    )


def _row(kept: Trials, name: str, way: str, labels: int) -> dict[str, Any]:
    row: dict[str, Any] = {"method": way, "network": name, "labels a class": labels}
    trials = [each for draw in DRAWS if (each := kept.get(f"{name}, {way}, {labels} labels, draw {draw}")) is not None]
    if not trials or "not run" in trials[0]:
        return row | {"accuracy %": f"not run{': ' + str(trials[0]['not run']) if trials else ''}"}
    return row | {
        "accuracy %": statistics.fmean(each["accuracy"] for each in trials),
        "ci95 over draws": t95([each["accuracy"] for each in trials]),
        "numbers trained": trials[0]["trained"],
        "numbers that stay": trials[0]["stay"],
        "CPU s": statistics.fmean(each["CPU s"] for each in trials),
        "learning rate": trials[0]["rate"],
        "draws": len(trials),
    }


def _goals(kept: Trials, rows: Sequence[Mapping[str, Any]], name: str, labels: int) -> list[dict[str, Any]]:
    """The way that is best on held-out samples beside full fine-tuning and the linear head, in points of test accuracy."""
    known = {
        row["method"]: row
        for row in rows
        if (row["network"], row["labels a class"]) == (name, labels) and row.get("draws")
    }
    held = {way: kept[f"{name}, {way}, rate {rate:g}"] for way in ADDED if (rate := _rate(kept, name, way)) is not None}
    ways = {row["method"] for row in rows if row["network"] == name} - {HEAD, ALL}
    whole = held.keys() == ways  # it is no choice while some were not tried
    best = max(held, key=lambda way: (held[way]["accuracy"], -held[way]["loss"])) if whole else None

    def above(other: str) -> float | None:
        """On the draws that both have."""
        if best is None or not {best, other} <= known.keys():
            return None
        pairs = [[kept.get(f"{name}, {way}, {labels} labels, draw {draw}") for way in (best, other)] for draw in DRAWS]
        return statistics.fmean(a["accuracy"] - b["accuracy"] for a, b in pairs if a is not None and b is not None)

    few = f"{name}, {labels} labels: the way picked by held-out samples"
    share = (
        None
        if best not in known or ALL not in known
        else known[best]["numbers trained"] / known[ALL]["numbers trained"]
    )
    return [
        common.target(f"{few}, points above full fine-tuning", ">= -1", above(ALL)),
        common.target(f"{few}, points above a linear head", ">= 0", above(HEAD)),
        common.target(f"{few}, share of the numbers trained", "<= 0.1", share),
    ]
