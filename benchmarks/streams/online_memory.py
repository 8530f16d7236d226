"""Classes that come task after task to a network that trains on the stream: what each method against forgetting still knows in the end.

mapsto bench online_memory
mapsto bench online_memory --only replay --seeds 0
python benchmarks/streams/online_memory.py --tune

A Conv4 (strides, 32 channels) learns from nothing; it answers test images of all classes after the last task, and is never told which
task an image is of (class-incremental). Of Split-CIFAR-10 1,000 images a class are taken, at 16 pixels, two classes a task, and each comes
twenty times; Split-Omniglot has ten characters a task, each drawing forty times: streams that repeat, shuffled each time. Each method has
the same bytes for its memory, of which kept scores take their share. Optimisers, rates, and α of DER++, were chosen by `--tune` on training
images that no run learns from, with another seed. What each run came to is kept in ``benchmarks/results/trials``, and the same command goes
on there.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import numpy as np
from _own_worker import Nothing
from numpy.typing import NDArray

from mapsto import datasets, discovery, networks
from mapsto.data.io.download import locate
from mapsto.errors import DataError
from mapsto.kinds import Network
from mapsto.nn.online.trained.learner import Labelled
from mapsto.report.build import t95

SEEDS = range(3)
"""Of the order of the classes, the network's first weights, and what is drawn."""
TUNING_SEED = 100
METHODS = (
    "replay",
    "derpp",
    "none",
    "der",
    "balanced_replay",
    "gdumb",
    "icarl",
    "agem",
    "lwf",
    "ewc",
)
FIRST = ("replay", "derpp")
"""These are run with every memory, others with the first."""
JOINT = "all classes at once, shuffled"
PUBLISHED = {200: 64.88 - 44.79, 500: 72.70 - 57.74}
"""Split-CIFAR-10, class-incremental: DER++ less ER, in points (Buzzega et al., 2020; ResNet-18, 50 passes)."""
AUGMENT: dict[str, list[Any]] = {"Split-CIFAR-10": ["flip", {"crop": {"padding": 2}}], "Split-Omniglot": []}
"""As in that paper."""
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Split = tuple[Images, Labels]


class Setting:
    """One data set, cut into tasks."""

    def __init__(self, name: str, *, per_task: int, passes: int, memories: Sequence[int], image_bytes: int) -> None:
        self.name, self.per_task, self.passes = name, per_task, passes
        self.memories, self.image_bytes = memories, image_bytes

    def fields(self, method: str) -> dict[str, Any]:
        """What was chosen by `--tune`."""
        return {"batch": 32, "replay": 32, **CHOSEN[self.name].get("all", {}), **CHOSEN[self.name].get(method, {})}


SETTINGS = (
    Setting("Split-CIFAR-10", per_task=2, passes=20, memories=(200, 500), image_bytes=768),
    Setting("Split-Omniglot", per_task=10, passes=40, memories=(200,), image_bytes=784),
)
CHOSEN: dict[str, dict[str, dict[str, Any]]] = {
    "Split-CIFAR-10": {
        "all": {"optimizer": "sgd", "rate": 0.03},
        "derpp": {"rate": 0.06, "alpha": 3.0},
        "der": {"rate": 0.06, "alpha": 3.0},
        "ewc": {"optimizer": "adam", "rate": 3e-3},  # its penalty makes plain steps of 0.03 diverge
    },
    "Split-Omniglot": {"all": {"rate": 3e-3}, "derpp": {"alpha": 3.0}, "der": {"alpha": 3.0}},
}
"""Data set → method → fields."""


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    kept = Kept(None if quick else common.RESULTS / "trials" / "online_memory.json")
    for seed in seeds or (SEEDS[:1] if quick else SEEDS):
        for setting, memory, method in runs(quick):
            name = row_name(setting, memory, method)
            if only not in name or (quick and method not in (*FIRST, "none")):
                continue
            if str(seed) not in kept.runs.get(name, {}):
                try:
                    kept.add(name, seed, run(setting, memory, method, seed, quick=quick))
                except DataError as error:
                    print(f"{name}: {error}", flush=True)
    rows = [row_of(setting, memory, method, kept) for setting, memory, method in runs(quick)]
    tree = common.result(
        "online_memory",
        conditions={
            "network": "Conv4, strides, 32 channels, from nothing",
            "passes over a task": {setting.name: setting.passes for setting in SETTINGS},
            "mini-batch and replayed samples": "32 and 32",
            "memory": "bytes of so many images with their labels; kept scores take their share",
            "fields": {setting.name: {method: setting.fields(method) for method in METHODS} for setting in SETTINGS},
            "quick": quick,
        },
        rows=rows,
        targets=[goal(setting, memory, kept) for setting in SETTINGS[:1] for memory in setting.memories],
    )
    return common.finished(tree, quick=quick)


class Kept:
    """What runs came to, in a file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.runs: dict[str, dict[str, dict[str, float]]] = (
            json.loads(file.read_text("utf-8")) if file is not None and file.is_file() else {}
        )

    def add(self, name: str, seed: int, found: dict[str, float]) -> None:
        self.runs.setdefault(name, {})[str(seed)] = found
        print(name, seed, found, flush=True)
        if self._file is not None:
            self._file.write_text(json.dumps(self.runs, indent=0) + "\n", encoding="utf-8")


def runs(quick: bool) -> list[tuple[Setting, int, str]]:
    """The comparison that the goal is about first, for each memory, then the other methods."""
    first = [(setting, memory, method) for setting in SETTINGS for memory in setting.memories for method in FIRST]
    others = [(setting, setting.memories[0], method) for setting in SETTINGS for method in (*METHODS[2:], JOINT)]
    return [each for each in (*first, *others) if not quick or each[1] == each[0].memories[0]]


def row_name(setting: Setting, memory: int, method: str) -> str:
    return f"{setting.name}, {memory}: {method}"


def row_of(setting: Setting, memory: int, method: str, kept: Kept) -> dict[str, Any]:
    """A method's figures over seeds."""
    found = list(kept.runs.get(row_name(setting, memory, method), {}).values())
    row: dict[str, Any] = {"data": setting.name, "memory, images": memory, "method": method}
    if not found:
        return {**row, "accuracy": "not run", "seeds": 0}
    accuracies = [each["accuracy"] for each in found]
    return {
        **row,
        "accuracy": statistics.mean(accuracies),
        "ci95 over seeds": t95(accuracies),
        "first task": statistics.mean(each["first task"] for each in found),
        "last task": statistics.mean(each["last task"] for each in found),
        "CPU s": statistics.median(each["seconds"] for each in found),
        "seeds": len(found),
    }


def goal(setting: Setting, memory: int, kept: Kept) -> dict[str, Any]:
    """DER++ less ER, by the seeds that both have, against half of what is published."""
    replay, derpp = (kept.runs.get(row_name(setting, memory, method), {}) for method in FIRST)
    both = sorted(replay.keys() & derpp.keys())
    gain = statistics.mean(derpp[seed]["accuracy"] - replay[seed]["accuracy"] for seed in both) if both else None
    return common.target(
        f"{setting.name}, memory of {memory} images: points of DER++ above replay, {len(both)} seeds",
        f">= {PUBLISHED[memory] / 2:.2f}",
        gain,
    )


# ------------------------------------------------------------------------------------------------------------------ a run


def run(
    setting: Setting, memory: int, method: str, seed: int, *, quick: bool = False, tuning: bool = False, **fields: Any
) -> dict[str, float]:
    """A whole stream, and the test images after it."""
    learn, test, source = split(setting, seed, quick=quick, tuning=tuning)
    network = fresh(setting, source, seed)
    joint = method == JOINT
    learner = discovery.find("mappings", "online.finetune")(
        stream=Nothing(),
        method="none" if joint else method,
        memory=memory * (setting.image_bytes + 4) / 1e6,
        seed=seed,
        augment=AUGMENT[setting.name],
        **{**setting.fields(method), **fields},
    )
    began = time.process_time()
    trainer = learner(network).open().trainer
    order = np.concatenate(orders(setting, learn[1], seed, joint=joint, passes=2 if quick else setting.passes))
    known: dict[int, int] = {}
    for start in range(0, len(order) - trainer.batch + 1, trainer.batch):
        batch: list[Labelled] = []
        for place in order[start : start + trainer.batch].tolist():
            label = int(learn[1][place])
            if label not in known:
                known[label] = len(known)
                trainer.grow([str(each) for each in known])
            batch.append(Labelled(learn[0][place], known[label]))
        trainer.learn(batch)  # what the stream's events come to; that they are answered before changes nothing
    seconds = time.process_time() - began
    names = np.array([*known])
    right = names[[int(trainer.scores(image, None, "").argmax()) for image in test[0]]] == test[1]
    tasks = tasks_of(setting, learn[1], seed)
    return {
        "accuracy": 100 * float(right.mean()),
        "first task": 100 * float(right[np.isin(test[1], tasks[0])].mean()),
        "last task": 100 * float(right[np.isin(test[1], tasks[-1])].mean()),
        "seconds": seconds,
    }


def tasks_of(setting: Setting, labels: Labels, seed: int) -> list[Labels]:
    """The classes of each task."""
    classes = np.random.default_rng(seed).permutation(np.unique(labels))
    return [classes[start : start + setting.per_task] for start in range(0, len(classes), setting.per_task)]


def orders(setting: Setting, labels: Labels, seed: int, *, joint: bool, passes: int) -> list[Labels]:
    """Examples in the order in which they come, pass after pass of task after task."""
    rng = np.random.default_rng((seed, 1))
    tasks = [np.unique(labels)] if joint else tasks_of(setting, labels, seed)
    return [rng.permutation(np.flatnonzero(np.isin(labels, task))) for task in tasks for _ in range(passes)]


def split(setting: Setting, seed: int, *, quick: bool, tuning: bool) -> tuple[Split, Split, Any]:
    """Images to learn from and to test with; in tuning these are training images that no run learns from."""
    if quick:
        digits = datasets.digits(size=16)
        source = digits.open()
        labels = np.asarray(source.labels, np.int64)
        own = np.concatenate([np.flatnonzero(labels == each)[:30] for each in range(10)])
        other = np.concatenate([np.flatnonzero(labels == each)[30:40] for each in range(10)])
        return (source.inputs[own], labels[own]), (source.inputs[other], labels[other]), digits
    if setting.name == "Split-CIFAR-10":
        locate("cifar-10-batches-bin", what="CIFAR-10")
        source = datasets.cifar10(split="train")
        learn = taken(source.open(), 0, 1000)
        test = taken(source.open(), 4500, 300) if tuning else taken(datasets.cifar10(split="test").open(), 0, 1000)
        return learn, test, source
    locate("omniglot-py", what="Omniglot")
    source = datasets.omniglot(split="background" if tuning else "evaluation")
    samples = source.open()
    labels = np.asarray(samples.labels, np.int64)
    chosen = np.random.default_rng((seed, 2)).permutation(labels.max() + 1)[:50]
    places = [np.flatnonzero(labels == each) for each in chosen]

    def drawings(start: int, stop: int) -> Split:
        rows = np.concatenate([each[start:stop] for each in places])
        return samples.inputs[rows], np.repeat(np.arange(len(places)), stop - start)

    return drawings(0, 15), drawings(15, 20), source


def taken(samples: Any, start: int, count: int) -> Split:
    labels = np.asarray(samples.labels, np.int64)
    rows = np.concatenate([np.flatnonzero(labels == each)[start : start + count] for each in range(10)])
    return halved(samples.inputs[rows]), labels[rows]


def halved(images: Images) -> Images:
    """At half the height and width: means of 2 × 2 pixels."""
    count, channels, height, width = images.shape
    return images.reshape(count, channels, height // 2, 2, width // 2, 2).mean((3, 5)).round().astype(np.uint8)


def fresh(setting: Setting, source: Any, seed: int) -> Network:
    """The network, which knows of the data only how it is normalised."""
    size = 16 if setting.name == "Split-CIFAR-10" else None
    return networks.conv4(data=source, size=size, width=32, downsampling="stride")(seed=seed)


# ------------------------------------------------------------------------------------------------------------------ settings


GRID: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]] = {
    "Split-CIFAR-10": {
        "replay": [{"optimizer": "adam", "rate": 3e-3}, {"rate": 0.03}, {"rate": 0.01}],
        "derpp": [
            {"optimizer": "adam", "rate": 3e-3, "alpha": 3.0},
            {"optimizer": "adam", "rate": 1e-3, "alpha": 3.0},
            *({"rate": 0.06, "alpha": alpha} for alpha in (0.3, 1.0, 3.0, 10.0)),
            {"rate": 0.02, "alpha": 3.0},
        ],
    },
    "Split-Omniglot": {
        "replay": [{"rate": 3e-3}, {"rate": 1e-3}, {"optimizer": "sgd", "rate": 0.1}],
        "derpp": [
            *({"rate": 3e-3, "alpha": alpha} for alpha in (0.1, 0.5, 1.0, 3.0)),
            {"optimizer": "sgd", "rate": 0.1, "alpha": 0.5},
        ],
    },
}


def tune() -> None:
    """Print what settings come to on held-out training images; choices are written into CHOSEN by hand."""
    kept = Kept(common.RESULTS / "trials" / "online_memory_tuning.json")
    for setting in SETTINGS:
        for method, settings in GRID[setting.name].items():
            for fields in settings:
                name = f"{row_name(setting, setting.memories[0], method)} {json.dumps(fields)}"
                if name not in kept.runs:
                    found = run(setting, setting.memories[0], method, TUNING_SEED, tuning=True, **fields)
                    kept.add(name, TUNING_SEED, found)


if __name__ == "__main__":
    tune() if "--tune" in sys.argv else main("--quick" in sys.argv)
