"""Distillation on CIFAR-100 beside the published tables: three pairs of networks, the usual losses, and ours.

mapsto bench distill_cifar100 --only vgg13
PYTHONPATH=benchmarks python benchmarks/compress/distill_cifar100.py --only "vgg13→vgg8, ours"

Every network here is trained by mapsto itself, the teachers too, so that their own accuracies stand beside the published ones: a
student is to be compared with its teacher and with the student that learns from labels alone. The figure is that of the last epoch on the
10,000 test images, from all 50,000 training images, one seed (`SEEDS`). The conditions are those of Tian et al. (2020): 240 epochs,
batches of 64, SGD of momentum 0.9, rate 0.05, weight decay 5e-4, crops and flips; the rate falls on a cosine here, in three steps
there. `ours` is `distill.dist` and `distill.review` one after the other on half the epochs each; it was not chosen by any test image.

ResNet-32x4 and 8x4 have a first convolution of 64 channels here, of 32 there. The whole takes a GPU; ``--quick`` shows on a CPU that it
works. A training that was stopped goes on with the same command, and rows that were never run say so.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import common
import torch
from compress import _shared

from mapsto import augment, datasets, distill, evaluate, networks, train
from mapsto.context import Numerics
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.run.executor import execute

SEEDS = (0,)
EPOCHS = 240
TIAN, ZHAO = "Tian et al., 2020", "Zhao et al., 2022"

Figures = dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher and a student, as fields of a source, with what papers report; None: not looked up."""

    teacher: dict[str, Any]
    student: dict[str, Any]
    published: Figures


PAIRS = {
    "vgg13→vgg8": Pair(
        {"vgg": {"depth": 13}},
        {"vgg": {"depth": 8}},
        {"teacher": 74.64, "labels": 70.36, "kd": 72.98, "crd": 73.94, "dkd": 74.68, "reviewkd": 74.84},
    ),
    "resnet56→resnet20": Pair(
        {"resnet_cifar": {"depth": 56, "shortcut": "B"}},
        {"resnet_cifar": {"depth": 20, "shortcut": "B"}},
        {"teacher": 72.34, "labels": 69.06, "kd": 70.66, "crd": 71.16, "dkd": 71.97, "reviewkd": 71.89},
    ),
    "resnet32x4→resnet8x4": Pair(
        {"resnet_cifar": {"depth": 32, "width": 64, "shortcut": "B"}},
        {"resnet_cifar": {"depth": 8, "width": 64, "shortcut": "B"}},
        {"teacher": 79.42, "labels": 72.50, "kd": 73.33, "crd": 75.51, "dkd": 76.32, "reviewkd": 75.63},
    ),
}
"""Pair → networks; figures of Tian et al. (teacher, labels, KD, CRD) and of Zhao et al. (DKD, ReviewKD), 240 epochs each."""
WAYS = ("labels", "kd", "dkd", "ours", "crd", "reviewkd")
BEST = ("kd", "crd", "dkd", "reviewkd")


def main(quick: bool = False, only: str = "", epochs: int | None = None) -> dict[str, Any]:
    rows_here = [(pair, way) for pair in PAIRS for way in WAYS]
    wanted = [(pair, way) for pair, way in rows_here if only in f"{pair}, {way}"]
    if not wanted:
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join(PAIRS))
    if not quick and not torch.cuda.is_available():
        raise DomainError(
            "the whole of it takes one GPU, and there is none here", hint="give --quick for a trial on the CPU"
        )
    cells = _shared.Cells("distill_cifar100", quick=quick)
    rounds = 2 if quick else epochs or EPOCHS
    if quick:
        wanted = [(pair, way) for pair, way in wanted if pair == wanted[0][0]]
    for seed in SEEDS:
        for name in dict.fromkeys(pair for pair, _ in wanted):
            training = PairTraining(PAIRS[name], rounds, seed, cells.folder / "store", quick=quick)
            cells.measured((name, "teacher", rounds, seed), lambda own=training: own.judged(own.teacher))
            for way in (way for pair, way in wanted if pair == name):
                cells.measured((name, way, rounds, seed), lambda own=training, way=way: own.judged(own.student(way)))
    return result(cells, rounds=rounds, quick=quick)


class PairTraining:
    """The trainings of one pair over a store, so that the teacher is trained once and a stopped training goes on."""

    def __init__(self, pair: Pair, epochs: int, seed: int, store: Path, *, quick: bool) -> None:
        self._seed, self._store, self._epochs, self._quick = seed, store, epochs, quick
        whole, test = datasets.cifar100(split="train"), datasets.cifar100(split="test")
        self._learn: Any = datasets.subset(data=whole, per_class=2) if quick else whole
        self._test: Any = datasets.subset(data=test, per_class=2) if quick else test
        few = {"width": 4} if quick else {}
        self._fields: dict[str, Any] = {
            "data": self._learn,
            "batch_size": 64,
            "learning_rate": 0.05,
            "weight_decay": 5e-4,
            "augment": (augment.flip(), augment.crop(padding=4)),
        }
        ((self._kind, given),) = pair.student.items()
        self._student = {**given, **few}
        ((kind, given),) = pair.teacher.items()
        labels = train.supervised(epochs=epochs, **self._fields)
        self.teacher: Any = self._source(kind, {**given, **few}) >> labels

    def student(self, way: str) -> Any:
        """The student and its training, as a mapping from nothing."""
        student = self._source(self._kind, self._student)
        whole = {**self._fields, "epochs": self._epochs}
        halves = {**self._fields, "epochs": max(self._epochs // 2, 1)}
        ramp = {"ramp": min(20, self._epochs)}
        if way == "labels":
            return student >> train.supervised(**whole)
        teacher = self._trained(self.teacher)
        ways: dict[str, Any] = {
            "kd": lambda: distill.logits(teacher=teacher, alpha=0.9, temperature=4, **whole),
            "dkd": lambda: distill.decoupled(teacher=teacher, others=8, **ramp, **whole),
            "crd": lambda: distill.contrastive(teacher=teacher, **whole),
            "reviewkd": lambda: distill.review(teacher=teacher, **ramp, **whole),
            "ours": lambda: (
                distill.review(teacher=teacher, **{**halves, **ramp}) >> distill.dist(teacher=teacher, **halves)
            ),
        }
        return student >> ways[way]()

    def judged(self, recipe: Mapping[None, Network]) -> dict[str, Any]:
        """Accuracy on the test images after the last epoch."""
        network = self._trained(recipe)
        metric = evaluate.accuracy(data=self._test, pictures=0)(network).metrics["accuracy"]
        return {"accuracy": metric.value, "ci95": metric.ci95}

    def _trained(self, recipe: Mapping[None, Network]) -> Network:
        how = {"device": "cuda", "precision": "bf16-mixed"} if torch.cuda.is_available() else {}
        return execute(recipe, store=self._store, seed=self._seed, numerics=Numerics(**how)).value()

    def _source(self, kind: str, fields: dict[str, Any]) -> Any:
        return getattr(networks, kind)(data=self._learn, classes="data", **fields)


def result(cells: _shared.Cells, *, rounds: int, quick: bool) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for name, pair in PAIRS.items():
        found: dict[str, list[dict[str, Any]]] = {}
        for way in ("teacher", *WAYS):
            trials = (cells.get(name, way, rounds, seed) for seed in SEEDS)
            found[way] = [trial for trial in trials if trial is not None]
            published = pair.published.get(way)
            rows.append(
                {
                    "pair": name,
                    "way": way,
                    "accuracy": _shared.summary(found[way], "accuracy"),
                    "ci95 of the images": found[way][0]["ci95"] if found[way] else None,
                    "published": "ours alone" if way == "ours" else "not looked up" if published is None else published,
                    "source": "" if way == "ours" else ZHAO if way in ("dkd", "reviewkd") else TIAN,
                    "epochs": rounds,
                    "seeds": len(found[way]),
                }
            )
        ours = _shared.summary(found["ours"], "accuracy")
        measured = None if isinstance(ours, str) else ours
        best = max(value for way in BEST if (value := pair.published[way]) is not None)
        targets.append(common.target(f"{name}, ours, against the best that is published", f">= {best:g}", measured))
    tree = common.result(
        "distill_cifar100",
        conditions={"seeds": list(SEEDS), "epochs": rounds, "epoch": "the last", "quick": quick},
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


if __name__ == "__main__":
    main(**_shared.arguments())
