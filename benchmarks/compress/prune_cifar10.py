"""ResNets on CIFAR-10 at 2.1 and 2.55 times fewer multiply-accumulates: ours and torch-pruning's, with the same fine-tuning.

mapsto bench prune_cifar10 --only resnet20
PYTHONPATH=benchmarks python benchmarks/compress/prune_cifar10.py --only resnet56 --epochs 100

The weights are Y. Idelbayev's, with option-A shortcuts. Whoever prunes, the module is trained by one loop (`_shared.fine_tuned`), for
as many epochs and from the same seeds, with the labels or with the original as a teacher; the figure is that of the last epoch on the
10,000 test images, not of the best. `ours` is `prune.magnitude` >> `prune.reconstruct`, with the original as a teacher, a channel's norm
in units of the work it takes, and a quarter of each layer kept; that and the learning rates were set by ``--only choose``: ResNet-20, one
epoch of 10,000 training images, judged on 5,000 others, never on test images. The original knows those 5,000 too, and who keeps more of it
looks better there: after an epoch of all images ours were a point ahead on them where it was behind on test images.
Torch-pruning 1.6 breaks on option-A shortcuts; it is given its best, see `_shared.by_torch_pruning`.

The whole is ResNet-56 for 100 epochs, on one GPU. The forms for a CPU are ResNet-20 for one epoch, and, ``--only few``, for ten epochs of
1,000 images, which all that looks at images is given alone. A trial that is done is kept (`_shared.Cells`), so that whoever stops goes on
with the same command; rows that were never run say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import common
import torch
from compress import _shared
from torch import nn

from mapsto import datasets, prune
from mapsto.context import Context, Numerics
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.profile.counts import count_macs, count_parameters

RATIOS = (2.1, 2.55)


class Tuning(NamedTuple):
    """What the fine-tuning is given."""

    network: int
    """Depth of the ResNet."""
    epochs: int
    images: int | None = None
    """Training images, as many of each class; None: all."""

    def __str__(self) -> str:
        return f"{self.epochs}" if self.images is None else f"{self.epochs} of {self.images} images"


TUNINGS = {"resnet20": Tuning(20, 1), "few": Tuning(20, 10, 1000), "resnet56": Tuning(56, 100)}
SEEDS = (0, 1, 2)
STATED = {20: 91.73, 56: 93.39}
"""Test accuracy of the originals; a network that gives another was not loaded rightly."""


class Way(NamedTuple):
    """Who chooses the channels, and what the loss of the fine-tuning is."""

    pruner: str
    teacher: bool


WAYS = {
    "torch-pruning magnitude, labels": Way("torch-pruning magnitude", False),
    "torch-pruning taylor, labels": Way("torch-pruning taylor", False),
    "torch-pruning magnitude, teacher": Way("torch-pruning magnitude", True),
    "torch-pruning taylor, teacher": Way("torch-pruning taylor", True),
    "ours, labels": Way("magnitude per cost, reconstruct", False),
    "ours": Way("magnitude per cost, reconstruct", True),
}
CANDIDATES = tuple(
    f"{criterion}{then}"
    for criterion in ("magnitude per cost", "magnitude", "taylor", "hessian", "lamp")
    for then in ("", ", reconstruct")
)
"""What ``--only choose`` compares."""
PUBLISHED = {
    2.1: (("Group-L1, 2.12×", 92.93), ("DepGraph, 2.11×", 93.46), ("DepGraph with sparse learning, 2.13×", 93.77)),
    2.55: (("DepGraph with sparse learning, 2.57×", 93.64),),
}
"""ResNet-56 as torch-pruning's own table has it: 100 epochs from a network of 93.53 %; its logs pick the best test epoch."""


def main(quick: bool = False, only: str = "", epochs: int | None = None) -> dict[str, Any]:
    if only not in ("", "choose", *TUNINGS):
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join((*TUNINGS, "choose")))
    cells = _shared.Cells("prune_cifar10", quick=quick)
    if only == "choose":
        return choose(cells, quick=quick, epochs=epochs or 1)
    wanted = [name for name in TUNINGS if only in ("", name)]
    if quick or (not only and not torch.cuda.is_available()):
        wanted = ["resnet20"] if quick else ["resnet20", "few"]
    tunings = {
        name: tuning._replace(epochs=1 if quick else epochs or tuning.epochs) for name, tuning in TUNINGS.items()
    }
    ratios, seeds = (RATIOS[:1], SEEDS[:1]) if quick else (RATIOS, SEEDS)
    for tuning in (tunings[name] for name in wanted):
        depth, setting = tuning.network, Setting(tuning, quick=quick, validation=False)
        reached = _shared.accuracy(setting.original.module(), setting.judged)
        print(f"ResNet-{depth}: {reached:.2f} %", flush=True)
        if not quick and abs(reached - STATED[depth]) > 0.1:
            raise DomainError(f"ResNet-{depth} has {reached:.2f} %, not {STATED[depth]}", where="prune_cifar10")
        for seed in seeds:
            for ratio in ratios:
                for name, way in list(WAYS.items())[:: len(WAYS) - 1 if quick else 1]:
                    cells.measured((depth, name, ratio, tuning, seed), setting.trial(way, ratio, seed))
    return result(cells, list(tunings.values()), quick=quick, seeds=seeds)


class Setting:
    """A network with the images that it is trained and judged on."""

    def __init__(self, tuning: Tuning, *, quick: bool, validation: bool) -> None:
        self.original: Network = _shared.resnet(tuning.network)(seed=0)
        holdout, self._epochs = _shared.HELD_OUT, tuning.epochs
        self.learn: Any = datasets.cifar10(split="train", holdout=holdout if validation else 0)
        if tuning.images is not None:
            self.learn = datasets.subset(data=self.learn, per_class=tuning.images // 10)
        judged = datasets.cifar10(split="validation", holdout=holdout) if validation else datasets.cifar10(split="test")
        few = 512 if quick else 10_000 if validation else None
        self.images = _shared.Images.of(self.learn.open(), self.original, most=few)
        self.judged = _shared.Images.of(judged.open(), self.original, most=500 if quick else None)

    def trial(self, way: Way, ratio: float, seed: int) -> Callable[[], dict[str, Any]]:
        """Prunes, trains and measures when it is called."""

        def measure() -> dict[str, Any]:
            module = pruned(way.pruner, self.original, ratio, self, seed)
            example = torch.zeros(self.original.signature.input_shape(2))
            macs = count_macs(self.original.module(), example) / count_macs(module.cpu(), example)
            before = _shared.accuracy(module, self.judged)
            teacher = self.original.module() if way.teacher else None
            module = _shared.fine_tuned(module, self.images, epochs=self._epochs, seed=seed, teacher=teacher)
            return {
                "macs ratio": macs,
                "parameters": count_parameters(module),
                "pruned": before,
                "accuracy": _shared.accuracy(module, self.judged),
            }

        return measure


def pruned(pruner: str, original: Network, ratio: float, setting: Setting, seed: int) -> nn.Module:
    if pruner.startswith("torch-pruning"):
        torch.manual_seed(seed)
        taylor = pruner.endswith("taylor")
        return _shared.by_torch_pruning(original, 1 / ratio, taylor=taylor, images=setting.images)
    budget: dict[str, Any] = {"macs": 1 / ratio, "min_channels": 1}
    looks = {"data": setting.learn}
    criteria: dict[str, Callable[[], Any]] = {
        "magnitude": lambda: prune.magnitude(**budget),
        "magnitude per cost": lambda: prune.magnitude(**budget, ranking="per_cost", max_prune=0.75),
        "taylor": lambda: prune.taylor(**budget, **looks),
        "hessian": lambda: prune.hessian(**budget, **looks),
        "lamp": lambda: prune.lamp(**budget),
    }
    context = Context(seed=seed, numerics=Numerics(device=_shared.device().type))
    criterion, _, then = pruner.partition(", ")
    small = context.apply(criteria[criterion](), original)
    if then:
        small = context.apply(prune.reconstruct(teacher=original, **looks), small)
    return _shared.copied(small.module())


def choose(cells: _shared.Cells, *, quick: bool, epochs: int) -> dict[str, Any]:
    """Criteria on held-out training images, with a teacher; writes no result."""
    setting = Setting(Tuning(20, epochs), quick=quick, validation=True)
    rows: list[dict[str, Any]] = []
    for ratio in RATIOS[-1:]:
        for pruner in CANDIDATES:
            trial = setting.trial(Way(pruner, True), ratio, 0)
            found = cells.measured(("choose", pruner, ratio, epochs), trial)
            rows.append({"criterion": pruner, "ratio": ratio, **found})
    common.show(rows)
    return {"rows": rows}


def result(cells: _shared.Cells, tunings: list[Tuning], *, quick: bool, seeds: tuple[int, ...]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for tuning in tunings:
        depth = tuning.network
        for ratio in RATIOS:
            found: dict[str, list[dict[str, Any]]] = {}
            for name in WAYS:
                trials = (cells.get(depth, name, ratio, tuning, seed) for seed in seeds)
                found[name] = [trial for trial in trials if trial is not None]
                rows.append(
                    {
                        "network": f"ResNet-{depth}",
                        "ratio": ratio,
                        "way": name,
                        "epochs": str(tuning),
                        "accuracy": _shared.summary(found[name], "accuracy"),
                        "ci95 over seeds": _shared.half(found[name], "accuracy"),
                        "seeds": len(found[name]),
                        "before tuning": _shared.summary(found[name], "pruned"),
                        "measured ratio": _shared.summary(found[name], "macs ratio"),
                    }
                )
            if depth == 56:
                rows += [
                    {"network": "ResNet-56", "ratio": ratio, "way": f"published: {way}", "accuracy": value}
                    for way, value in PUBLISHED[ratio]
                ]
            for against in ("labels", "teacher"):
                few = f", {tuning.images} images" if tuning.images else ""
                what = f"ResNet-{depth}, {ratio}×{few}: points above the better of torch-pruning's, all fine-tuned by {against}"
                targets.append(common.target(what, ">= 0", _above(found, against)))
    tree = common.result(
        "prune_cifar10",
        conditions={
            "seeds": list(seeds),
            "epoch": "the last",
            "judged on": "CIFAR-10's test images",
            "fine-tuning": "one loop for all: SGD, Nesterov, one cosine, batch 128, crops and flips",
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


def _above(found: dict[str, list[dict[str, Any]]], against: str) -> float | None:
    """Mean accuracy of ours less that of the better peer, all trained alike; None where one of them was not run."""
    ours = found["ours" if against == "teacher" else "ours, labels"]
    peers = [trials for name, trials in found.items() if name.startswith("torch") and name.endswith(against)]
    if not ours or not all(peers):
        return None
    means = [float(_shared.summary(trials, "accuracy")) for trials in (ours, *peers)]
    return means[0] - max(means[1:])


if __name__ == "__main__":
    main(**_shared.arguments())
