"""From one domain to another: every single way beside what `adapt.transfer` picks.

mapsto bench domain_transfer
mapsto bench domain_transfer --only "printed digits" --seeds 0

Printed digits (the glyphs' fonts) → handwritten digits (scikit-learn) share their ten classes, with no label of the target and with 1 and 5
a class. Glyphs → Omniglot, Omniglot → handwritten digits and EfficientNet-Lite0 with classes of CIFAR-FS → its test classes do not: the
source shapes the embedding, and 5 labels a class of the target give the head. A cell's network is trained on its source (EfficientNet-Lite0
has ImageNet's weights). The target's samples without labels are never those that are tested. Rates and steps are the same for all ways, and
nothing is chosen by a test label. What a trial came to is kept in ``benchmarks/results/trials``, and the same command goes on there, until
the trials have taken 60 CPU minutes; what was not run says so.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import numpy as np

from mapsto import adapt, datasets, networks, train
from mapsto.context import Context, Numerics
from mapsto.data.glyphs.alphabet import split
from mapsto.data.glyphs.render import render
from mapsto.errors import MapstoError
from mapsto.kinds import Dataset, Network, Table
from mapsto.mapping import Mapping
from mapsto.nn.network.inference import forward

SEEDS = (0, 1, 2)
BUDGET = 60 * 60
"""CPU seconds."""
SIZE, WIDTH = 20, 32
"""Pixels of characters, and channels of the network that reads them."""
PICK = "adapt.transfer"
WAYS = ("mmd", "deep_coral", "tent", "dann", "coral", "few", "source")
Trials = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """A source and a target."""

    network: Callable[[Path], Network]
    source: Callable[[Path], Dataset]
    target: Dataset
    """Without labels."""
    pool: Dataset
    """What labelled samples are drawn from."""
    test: Dataset
    labels: tuple[int, ...]
    """A class."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the ways that train."""


class Remembering(Context):
    """Trains what several cells have in common once."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._made: dict[tuple[Any, int], tuple[Any, Any]] = {}

    def apply(self, mapping: Mapping[Any, Any], value: Any) -> Any:
        key = (repr(mapping), id(value))
        if key not in self._made:
            self._made[key] = (value, super().apply(mapping, value))  # keeps `value` alive: ids recur
        return self._made[key][1]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "domain_transfer.json"
    pairs = _quick_pairs() if quick else _pairs()
    made: Trials = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds or SEEDS[: 1 if quick else None]:
            for name, pair in pairs.items():
                if only in name:
                    for key, trial in _trials(name, pair, seed, Path(folder), quick, lambda: _read(file, quick) | made):
                        made[key] = trial
                        print(key, json.dumps(trial), flush=True)
                        if not quick:  # read anew, since others may run other rows
                            file.write_text(json.dumps(_read(file, quick) | made, indent=0) + "\n", encoding="utf-8")
    return common.finished(_tree(_read(file, quick) | made, pairs, quick), quick=quick)


def _read(file: Path, quick: bool) -> Trials:
    return json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}


# ----------------------------------------------------------------------------------------------------------------- data


def _pairs() -> dict[str, Pair]:
    digits = {part: datasets.digits(split=part, size=SIZE) for part in ("train", "test")}
    background = datasets.omniglot(split="background", size=SIZE)
    evaluation = datasets.subset(data=datasets.omniglot(split="evaluation", size=SIZE), classes=_first("evaluation"))
    photos = datasets.cifar_fs(split="test")
    rest = datasets.subset(data=photos, per_class=30, part="rest")
    return {
        "printed digits → handwritten digits": Pair(
            lambda folder: _trained(_printed_digits(folder), epochs=8),
            _printed_digits,
            digits["train"],
            digits["train"],
            digits["test"],
            (0, 1, 5),
            {"steps": 120},
        ),
        "glyphs → Omniglot": Pair(
            lambda folder: _trained(_glyphs(), epochs=10),
            lambda folder: _glyphs(),
            datasets.subset(data=background, classes=_first("background", 100)),
            datasets.subset(data=evaluation, per_class=10),
            datasets.subset(data=evaluation, per_class=10, part="rest"),
            (5,),
            {"steps": 120},
        ),
        "Omniglot → handwritten digits": Pair(
            lambda folder: _trained(_omniglot(background), epochs=10),
            lambda folder: _omniglot(background),
            digits["train"],
            digits["train"],
            digits["test"],
            (5,),
            {"steps": 120},
        ),
        "EfficientNet-Lite0 → CIFAR-FS": Pair(
            lambda folder: networks.efficientnet_lite0(size=64)(seed=0),
            lambda folder: datasets.subset(data=datasets.cifar_fs(split="train"), per_class=10),
            datasets.subset(data=rest, per_class=30),
            datasets.subset(data=rest, per_class=30, seed=1),
            datasets.subset(data=photos, per_class=30),
            (5,),
            {"steps": 25, "batch_size": 24, "learning_rate": 1e-4, "batch_norm": "keep"},
        ),
    }


def _quick_pairs() -> dict[str, Pair]:
    whole = datasets.digits(size=8)
    source = datasets.subset(data=whole, per_class=8)
    other = datasets.subset(data=whole, per_class=16, part="rest")
    pool, test = (datasets.subset(data=other, per_class=8, part=part) for part in ("chosen", "rest"))
    network = networks.conv4(data=whole, width=4, blocks=1)(seed=0)
    return {"digits → digits": Pair(lambda _: network, lambda _: source, pool, pool, test, (0, 1), {"steps": 2})}


def _first(part: Literal["background", "evaluation"], count: int = 20) -> tuple[str, ...]:
    """Characters of Omniglot, spread evenly over those of a part."""
    names = datasets.omniglot(split=part, size=SIZE).open().classes
    return tuple(names[place * len(names) // count] for place in range(count))


def _printed_digits(folder: Path) -> Dataset:
    file = folder / "printed_digits.npz"
    if not file.is_file():
        named = {each.name: each for each in split("test")}
        words = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
        images = render(tuple(named[f"DIGIT {word}"] for word in words), 150, size=SIZE, seed=0)
        np.savez(file, inputs=images, labels=np.repeat([str(digit) for digit in range(10)], 150))
    return datasets.arrays(file=str(file), ink="light")


def _glyphs() -> Dataset:
    return datasets.glyphs(split="train", characters=200, size=SIZE)


def _omniglot(background: Dataset) -> Dataset:
    return datasets.subset(data=background, classes=_first("background", 200))


def _trained(source: Dataset, epochs: int) -> Network:
    fresh = networks.conv4(data=datasets.digits(size=SIZE), width=WIDTH)(seed=0)
    return train.supervised(data=source, epochs=epochs, batch_size=64)(fresh, seed=0)


# --------------------------------------------------------------------------------------------------------------- trials


def _trials(
    name: str, pair: Pair, seed: int, folder: Path, quick: bool, known: Callable[[], Trials]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Test accuracy of every way, and of what was picked, at each number of labels, while there is time; what is known is left out."""
    ctx = Remembering(seed=seed, numerics=Numerics(threads=1))
    ways = ("tent", "coral", "source") if quick else WAYS
    cells = [(labels, way) for labels in pair.labels for way in (*ways, PICK)]
    if all(_key(name, labels, way, seed) in known() for labels, way in cells):
        return
    network, source = pair.network(folder), pair.source(folder)
    for labels, way in cells:
        key, kept = _key(name, labels, way, seed), known()
        if key in kept or sum(each["CPU s"] for each in kept.values()) > BUDGET:
            continue
        began = time.process_time()
        few = datasets.subset(data=pair.pool, per_class=labels, seed=seed) if labels else None
        asked: Any = (way,) if way != PICK else ways if quick else "auto"
        mapping = adapt.transfer(
            source=source,
            target=pair.target,
            labelled=few,
            ways=asked,
            strength=0.1,
            **pair.fields,
        )
        ctx.notes.clear()
        try:
            trial: dict[str, Any] = {"accuracy": _accuracy(ctx.apply(mapping, network), pair.test)}
        except MapstoError as error:
            trial = {"not run": str(error)}
        table = ctx.attached.get("ways")
        if way == PICK and isinstance(table, Table):
            trial |= {"notes": list(ctx.notes), "ways": table.rows}
        yield key, trial | {"CPU s": round(time.process_time() - began, 1)}


def _key(name: str, labels: int, way: str, seed: int) -> str:
    return f"{name}, {labels} labels, {way}, seed {seed}"


def _accuracy(network: Network, data: Dataset) -> float:
    """In %, by the names of classes."""
    samples = data.open()
    answers = forward(network.module(), samples.inputs, network.signature.preprocessing).argmax(1)
    names = network.signature.classes or ()
    return 100 * float(np.mean([names[a] == samples.classes[b] for a, b in zip(answers, samples.labels, strict=True)]))


# --------------------------------------------------------------------------------------------------------------- result


def _tree(kept: Trials, pairs: dict[str, Pair], quick: bool) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    goals: list[dict[str, Any]] = []
    for name, pair in pairs.items():
        for labels in pair.labels:
            trials = {way: [kept.get(_key(name, labels, way, seed), {}) for seed in SEEDS] for way in (*WAYS, PICK)}
            rows.append(_row(name, labels, trials))
            found = {way: [trial["accuracy"] for trial in each if "accuracy" in trial] for way, each in trials.items()}
            singles = [statistics.fmean(each) for way, each in found.items() if way != PICK and each]
            behind = statistics.fmean(found[PICK]) - max(singles) if found[PICK] and singles else None
            goals.append(
                common.target(f"{name}, {labels} labels: {PICK}, points above the best single way", ">= -0.5", behind)
            )
    return common.result(
        "domain_transfer",
        conditions={
            "network": f"conv4 of width {WIDTH} at {SIZE} pixels; EfficientNet-Lite0 at 64 pixels",
            "rates and steps": {name: pair.fields for name, pair in pairs.items()},
            "CPU s in all": sum(each["CPU s"] for each in kept.values()),
            "quick": quick,
        },
        rows=rows,
        targets=goals,
    )


def _row(name: str, labels: int, trials: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One cell of the benchmark: test accuracy of each way in %, the mean over seeds."""
    row: dict[str, Any] = {"from → to": name, "labels a class": labels}
    for way, each in trials.items():
        accuracies = [trial["accuracy"] for trial in each if "accuracy" in trial]
        impossible = any("not run" in trial for trial in each)
        row[way] = statistics.fmean(accuracies) if accuracies else None if impossible else "not run"
    taken = [way[0] for trial in trials[PICK] for way in trial.get("ways", ()) if way[-1] == "yes"]
    row["taken"] = ", ".join(dict.fromkeys(taken)) or None
    return row | {"seeds": max(sum("accuracy" in trial for trial in each) for each in trials.values())}
