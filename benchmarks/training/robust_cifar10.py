"""A ResNet-20 made robust in fifteen CPU minutes of Fast-AT, and what int8 and ensembles make of it: attacks, corruptions, calibration.

mapsto bench robust_cifar10
mapsto bench robust_cifar10 --only choose

The weights are Y. Idelbayev's, standard training without attacks. Training is `train.adversarial` with its default method, one step of
attack from a random start at 8/255. Batch and rate were never looked at on test images: of two pilots of 150 CPU seconds, judged on 500
held-out training images, batch 128 at a rate of 0.1 gave 46.6 clean and 17.0 under PGD-10, at 0.25 with averaged weights 39.0 and 24.2; 64
at 0.1 moves as far an image as the latter, in more steps. ``--only choose`` compares them again on held-out images.

All networks are judged on the same 1,000 test images, a hundred of each class, and on corruptions of the same 300 of them. Temperatures are
fitted to 5,000 training images that are held out from our training; the standard network knows them. CPU time is that of the process, not
of the clock. What is done is kept, the training in a store with its checkpoints, so that the same command goes on after a stop; networks
that were not judged say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import common
from compress import _shared

from mapsto import augment, datasets, evaluate, networks, quantize, train
from mapsto.context import Context, Numerics
from mapsto.errors import DomainError
from mapsto.kinds import Network, Report
from mapsto.run.executor import execute

EPSILON = 8 / 255
MINUTES = 15
EPOCHS = 2
SETTINGS: dict[str, dict[str, Any]] = {
    "batch 64, rate 0.1": {"batch_size": 64, "learning_rate": 0.1},
    "batch 128, rate 0.1": {"batch_size": 128, "learning_rate": 0.1},
    "batch 128, rate 0.25": {"batch_size": 128, "learning_rate": 0.25},
}
CHOSEN = "batch 64, rate 0.1"
CHOICE_IMAGES = 18_000
"""Images that ``--only choose`` steps on, in one pass."""
WEIGHTS_32 = "weights/cifar10_resnet32-d509ac18.th"
ONE = Numerics(threads=1)


class Bench:
    """The data and the networks; each network is made once, when it is asked for."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.cells = _shared.Cells("robust_cifar10", quick=quick)
        held_out = _shared.HELD_OUT
        self.learn: Any = datasets.cifar10(split="train", holdout=held_out)
        self.held_out: Any = datasets.cifar10(split="validation", holdout=held_out)
        self.test: Any = datasets.subset(data=datasets.cifar10(split="test"), per_class=2 if quick else 100)
        self.images = 10 if quick else 300
        if quick:
            self.learn, self.held_out = (
                datasets.subset(data=each, per_class=13) for each in (self.learn, self.held_out)
            )
        self.networks: dict[str, Callable[[], Network]] = {
            "standard": cache(lambda: _shared.resnet(20)(seed=0)),
            "robust": cache(lambda: self.trained(CHOSEN, self.learn, EPOCHS)),
        }
        for name in ("standard", "robust"):
            self.networks[f"{name}, int8"] = cache(partial(self._int8, name))
        for depth in () if quick else (32, 56):
            self.networks[f"ResNet-{depth}, int8"] = cache(partial(self._int8, depth))
        self.networks["ensemble of standard and robust, int8"] = partial(self._ensemble, "standard", "robust")
        if not quick:
            three = partial(self._ensemble, "standard", "ResNet-32", "ResNet-56")
            self.networks["ensemble of ResNet-20, 32 and 56, int8"] = three

    def trained(self, name: str, learn: Any, epochs: int) -> Network:
        step = train.adversarial(
            data=learn,
            validation=self.held_out,
            epochs=epochs,
            epsilon=EPSILON,
            augment=(augment.flip(),),
            schedule="onecycle",
            **SETTINGS[name],
        )
        began, key = time.process_time(), ("training", name, epochs, len(learn.open()))
        before = self.cells.get(*key) or {}
        if not before.get("done"):
            try:
                run = execute(_shared.resnet(20) >> step, store=self.cells.folder / "store", seed=0, numerics=ONE)
            finally:
                spent = before.get("CPU minutes", 0.0) + (time.process_time() - began) / 60
                self.cells.keep(key, {"CPU minutes": spent})
            self.cells.keep(key, {"CPU minutes": spent, "done": True})
            return run.value()
        return execute(_shared.resnet(20) >> step, store=self.cells.folder / "store", seed=0, numerics=ONE).value()

    def minutes(self) -> float | None:
        """CPU minutes of the training; None before its end."""
        found = self.cells.get("training", CHOSEN, EPOCHS, len(self.learn.open())) or {}
        return found.get("CPU minutes") if found.get("done") else None

    def _int8(self, name: str | int) -> Network:
        original = self.networks[name]() if isinstance(name, str) else resnet(name)
        return Context(numerics=ONE).apply(quantize.static(data=self.learn), original)

    def _ensemble(self, *names: str) -> Network:
        return networks.ensemble(members=tuple(self.networks[f"{name}, int8"]() for name in names))()

    def report(self, step: Any, network: Network) -> Report:
        return Context(numerics=ONE).apply(step, network)

    # -- what is measured

    def attacked(self, name: str) -> dict[str, Any]:
        original = name.removesuffix(", int8")
        surrogate = self.networks[original]() if original != name and original in self.networks else None
        step = evaluate.robustness(data=self.test, surrogate=surrogate, curve=() if self.quick else "auto")
        return _values(self.report(step, self.networks[name]()))

    def corrupted(self, name: str) -> dict[str, Any]:
        report = self.report(evaluate.corruptions(data=self.test, samples=self.images), self.networks[name]())
        rows = {row[0]: row[-1] for row in report.tables["corruptions"].rows}
        return {**_values(report), "of each": rows}

    def calibrated(self, name: str) -> dict[str, Any]:
        step = evaluate.calibration(data=self.test, held_out=self.held_out)
        return _values(self.report(step, self.networks[name]()))


def resnet(depth: int) -> Network:
    """Y. Idelbayev's trained ResNet of that depth."""
    if depth in _shared.WEIGHTS:
        return _shared.resnet(depth)(seed=0)
    return networks.checkpoint(
        factory="mapsto.nn.networks.resnet_cifar:resnet_cifar",
        arguments={"depth": depth},
        file=WEIGHTS_32,
        data=datasets.cifar10(split="test"),
        **_shared.PREPROCESSING,
    )(seed=0)


def _values(report: Report) -> dict[str, Any]:
    return {name: metric.value for name, metric in report.metrics.items()}


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    bench = Bench(quick=quick)
    if only == "choose":
        return choose(bench)
    if only and not any(only in name for name in bench.networks):
        raise DomainError(
            f"no network's name holds '{only}'", where="--only", hint=", ".join(("choose", *bench.networks))
        )
    parts = {"attacked": bench.attacked, "corrupted": bench.corrupted, "calibrated": bench.calibrated}
    for name in (name for name in bench.networks if only in name):
        for part, measure in parts.items():
            if part == "attacked" and name.startswith(("ResNet", "ensemble of ResNet")):
                continue  # never trained against attacks: the rows are there for corruptions
            bench.cells.measured((part, name), partial(measure, name))
    found = {name: {part: bench.cells.get(part, name) or {} for part in parts} for name in bench.networks}
    rows = [_row(name, each) for name, each in found.items()]
    tree = common.result(
        "robust_cifar10",
        conditions={
            "training": f"train.adversarial, fast, 8/255, {CHOSEN}, {EPOCHS} passes over 45,000 images, one cycle, flips",
            "training, CPU minutes": bench.minutes(),
            "attacks": "L-inf 8/255 on 1,000 test images; PGD-10 of step 2/255 from a random start, APGD of 20 steps on each of two losses",
            "corruptions": "15 x 5 severities of 300 of these images",
            "threads": 1,
            "quick": quick,
        },
        rows=rows,
        targets=_targets(found, bench.minutes()),
    )
    return common.finished(tree, quick=quick)


def _row(name: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    attacked, corrupted, calibrated = (found[part] for part in ("attacked", "corrupted", "calibrated"))
    clean = attacked.get("accuracy", "not run")
    return {
        "network": name,
        "clean": clean,
        "FGSM": attacked.get("fgsm"),
        "PGD-10": attacked.get("pgd"),
        "APGD": attacked.get("apgd"),
        "transfer": attacked.get("transfer"),
        "clean, 300 images": corrupted.get("accuracy", "not run"),
        "corrupted": corrupted.get("corrupted"),
        "ECE": calibrated.get("ece", "not run"),
        "ECE after temperature": calibrated.get("ece_after"),
        "AURC": calibrated.get("aurc"),
    }


def _targets(found: Mapping[str, Mapping[str, Mapping[str, Any]]], minutes: float | None) -> list[dict[str, Any]]:
    robust, small = (found[name]["attacked"] for name in ("robust", "robust, int8"))

    def apart(metric: str) -> float | None:
        return abs(robust[metric] - small[metric]) if robust and small else None

    return [
        common.target("training, CPU minutes", f"<= {MINUTES}", minutes),
        common.target("clean accuracy, %", ">= 50", robust.get("accuracy")),
        common.target("accuracy under PGD-10 at 8/255, %", ">= 25", robust.get("pgd")),
        common.target("int8: points of clean accuracy from float", "<= 2", apart("accuracy")),
        common.target("int8: points under PGD-10 from float", "<= 2", apart("pgd")),
    ]


def choose(bench: Bench) -> dict[str, Any]:
    """Settings on held-out training images; writes no result."""
    learn = bench.learn if bench.quick else datasets.subset(data=bench.learn, per_class=CHOICE_IMAGES // 10)
    step = evaluate.robustness(data=bench.held_out, samples=500, attacks=["pgd"], curve=())
    rows: list[dict[str, Any]] = []
    for name in SETTINGS:
        measure = partial(lambda name: _values(bench.report(step, bench.trained(name, learn, 1))), name)
        rows.append({"setting": name, **bench.cells.measured(("choose", name), measure)})
    common.show(rows)
    return {"rows": rows}


if __name__ == "__main__":
    main(**{name: value for name, value in _shared.arguments().items() if name != "epochs"})
