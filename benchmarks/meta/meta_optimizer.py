"""A learned update rule against SGD with momentum and Adam, on networks, widths, data and numbers of steps that it has not seen.

The rule is that of the recipe `meta_optimizer`: it has seen perceptrons up to 96 wide and convolutional networks up to 24 wide on printed
characters of 10 pixels and on sinusoids, for up to 200 steps. SGD, Adam and the rule have the same schedule (half a cosine) and as many
learning rates to choose from, by the final training loss with another seed; the rule is also run as it comes, as it is before training,
and Adam at its usual 0.001. What each training came to is kept in ``benchmarks/results/trials``, and the same command goes on there.

mapsto bench meta_optimizer
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import common
import torch
from scipy import stats
from torch import Tensor, nn

from mapsto.context import Numerics
from mapsto.data.sets.cifar10 import Cifar10
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.subset import Subset
from mapsto.kinds import Dataset, Network
from mapsto.mappings.networks.update_rule import UpdateRule
from mapsto.nn.kernels.malloc import keep_pages
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.networks.conv4 import conv4
from mapsto.nn.train.optimizer import Optimisation
from mapsto.recipe.reader import load_recipe
from mapsto.run.executor import execute
from mapsto.store import Store, default_store
from mapsto.store.codec import network_digest

RATES = {
    "sgd": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "adam": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "learned": (0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0),
}
GRID = (
    "seven rates each, chosen after a first run with five (sgd 0.003 to 0.3, adam 0.0003 to 0.03, learned 0.25 to "
    "4) in which the rule chose the lowest in all three settings and Adam the highest in one: sgd and adam got one "
    "more at either end, learned lost 4 and got three lower ones. The rule's rates lie a factor of 2 apart, the "
    "others' about 3. The seeds are the same in both runs; in the first the tuned rule lost to tuned Adam and SGD "
    "in all three settings"
)
USUAL = Optimisation().learning_rate
"""What the rule's multiplier 1 is."""
TUNING_SEED = 1000
TRIALS = common.RESULTS / "trials" / "meta_optimizer.json"

Data: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Inputs and labels to train on, and to test on."""


@dataclasses.dataclass(frozen=True)
class Setting:
    name: str
    network: Callable[[], nn.Module]
    train: Dataset
    test: Dataset
    steps: int
    batch: int = 64


def perceptron(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def settings() -> list[Setting]:
    train, test = Digits(split="train", size=16), Digits(split="test", size=16)
    photographs = Subset(data=Cifar10(), per_class=300)
    unseen = Subset(data=Cifar10(split="test"), per_class=100)
    return [
        Setting(
            "perceptron, 4 layers of 96, digits 16 px, 300 steps",
            lambda: perceptron(256, 96, 96, 96, 96, 10),
            train,
            test,
            300,
        ),
        Setting(
            "perceptron, 1 layer of 64, digits 16 px, 1200 steps", lambda: perceptron(256, 64, 10), train, test, 1200
        ),
        Setting(
            "Conv4 of 16 with batch norm, 3,000 images of CIFAR-10, 300 steps",
            lambda: conv4(channels=3, size=32, width=16, classes=10),
            photographs,
            unseen,
            300,
        ),
    ]


def opened(data: Dataset) -> tuple[Tensor, Tensor]:
    samples = data.open()
    return prepare(samples.inputs, samples.preprocessing), torch.as_tensor(samples.labels)


def begun(
    setting: Setting, data: Data, optimizer: str, rate: float, rule: Network | None, seed: int
) -> tuple[nn.Module, Callable[[int], None]]:
    """A fresh network, and what does a step of its training."""
    inputs, labels, _, _ = data
    torch.manual_seed(seed)
    module = setting.network()
    order = torch.Generator().manual_seed(seed)
    learned = optimizer == "learned"
    fields: dict[str, Any] = {"optimizer": optimizer, "weight_decay": 0.0, "rule": rule if learned else None}
    optimisation = Optimisation(learning_rate=rate * USUAL if learned else rate, **fields)
    stepping = optimisation.make(module, rule=rule)

    def advance(step: int) -> None:
        for group in stepping.param_groups:
            group["lr"] = optimisation.rate(step, setting.steps)
        chosen = torch.randint(len(inputs), (setting.batch,), generator=order)
        loss = nn.functional.cross_entropy(module(inputs[chosen]), labels[chosen])
        stepping.zero_grad()
        loss.backward()
        stepping.step()

    return module, advance


def trained(
    setting: Setting, data: Data, optimizer: str, rate: float, rule: Network | None, seed: int
) -> tuple[float, float]:
    """The final loss over all of the training data, and the accuracy (%) on the test data."""
    inputs, labels, test_inputs, test_labels = data
    module, advance = begun(setting, data, optimizer, rate, rule, seed)
    for step in range(setting.steps):
        advance(step)
    # In training mode: batch norm's running statistics are another question than how well the loss was brought down.
    with torch.no_grad():
        losses = [
            nn.functional.cross_entropy(module(x), y) * len(x)
            for x, y in zip(inputs.split(500), labels.split(500), strict=True)
        ]
        module.eval()
        right = sum(
            int((module(x).argmax(1) == y).sum())
            for x, y in zip(test_inputs.split(500), test_labels.split(500), strict=True)
        )
    final = float(sum(losses)) / len(inputs)
    return final if math.isfinite(final) else math.inf, 100 * right / len(test_inputs)


def milliseconds(setting: Setting, data: Data, rule: Network) -> dict[str, float]:
    """Milliseconds a step by each optimiser, in turn, so that a busy machine slows all alike."""

    def ten(optimizer: str) -> Callable[[], None]:
        _, advance = begun(setting, data, optimizer, 1e-3, rule if optimizer == "learned" else None, 0)
        return lambda: [advance(step) for step in range(10)] and None

    times = common.side_by_side({optimizer: ten(optimizer) for optimizer in RATES}, rounds=15)
    return {optimizer: statistics.median(found) / 10 * 1e3 for optimizer, found in times.items()}


def learned_rule(quick: bool) -> Network:
    """The recipe's rule: from the store, else trained now."""
    recipe = load_recipe("meta_optimizer", quick=quick)
    steps: Any = recipe.steps
    source = next(step.mapping.rule for step in steps.steps if getattr(getattr(step, "mapping", None), "rule", None))
    run = execute(source, seed=recipe.seed, numerics=Numerics(threads=1))
    return Store(default_store()).load(run.steps[-1].digest)


def interval(values: list[float]) -> float:
    """Half-width of the mean's 95 % interval, by Student's t."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def main(quick: bool = False) -> dict[str, Any]:
    torch.set_num_threads(1)
    keep_pages()
    seeds = 2 if quick else 4
    chosen = settings()[:1] if quick else settings()
    if quick:
        chosen = [dataclasses.replace(setting, steps=20) for setting in chosen]
    data = {setting.name: (*opened(setting.train), *opened(setting.test)) for setting in chosen}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    kept: dict[str, Any] = {} if quick or not TRIALS.is_file() else json.loads(TRIALS.read_text("utf-8"))

    def run(setting: Setting, optimizer: str, rate: float, rule: Network | None, seed: int) -> tuple[float, float]:
        key = f"{setting.name}|{optimizer}|{rate}|{seed}|{network_digest(rule) if rule else ''}"
        if key not in kept:
            kept[key] = trained(setting, data[setting.name], optimizer, rate, rule, seed)
            if not quick:
                TRIALS.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
        return kept[key]

    def measure(setting: Setting, label: str, optimizer: str, rates: tuple[float, ...], rule: Network | None) -> None:
        if len(rates) > 1:
            tried = {rate: run(setting, optimizer, rate, rule, TUNING_SEED)[0] for rate in rates}
            rate = min(tried, key=lambda rate: tried[rate])
        else:
            tried, rate = {}, rates[0]
        runs = [run(setting, optimizer, rate, rule, seed) for seed in range(seeds)]
        losses, accuracies = (list(part) for part in zip(*runs, strict=True))
        found[setting.name, label] = {
            "setting": setting.name,
            "optimizer": label,
            "rate": rate,
            "rates tried": list(tried),
            "train loss": statistics.mean(losses),
            "train loss ci95": interval(losses),
            "test accuracy": statistics.mean(accuracies),
            "test accuracy ci95": interval(accuracies),
            "seeds": seeds,
        }
        common.show([found[setting.name, label]])

    untrained = UpdateRule()(seed=0)
    for setting in chosen:
        measure(setting, "sgd, tuned", "sgd", RATES["sgd"], None)
        measure(setting, "adam, tuned", "adam", RATES["adam"], None)
        measure(setting, "adam, 0.001", "adam", (0.001,), None)
        measure(setting, "untrained, as it comes", "learned", (1.0,), untrained)
    rule = learned_rule(quick)
    for setting in chosen:
        measure(setting, "learned, as it comes", "learned", (1.0,), rule)
        measure(setting, "learned, tuned", "learned", RATES["learned"], rule)
        times = milliseconds(setting, data[setting.name], rule)
        for (name, label), row in found.items():
            if name == setting.name:
                row["ms a step"] = times[label.partition(",")[0].replace("untrained", "learned")]

    def wins(label: str, against: str) -> int:
        return sum(
            found[setting.name, label]["train loss"] <= found[setting.name, against]["train loss"] for setting in chosen
        )

    of = f"of {len(chosen)} settings in which the final training loss of the learned rule"
    tree = common.result(
        "meta_optimizer",
        conditions={
            "seeds": seeds,
            "tuning seed": TUNING_SEED,
            "schedule": "cosine",
            "batch": 64,
            "grid": GRID,
            "rates": {name: list(rates) for name, rates in RATES.items()},
            "recipe": "meta_optimizer",
            "threads": 1,
            "quick": quick,
        },
        rows=[found[key] for key in sorted(found, key=lambda key: ([s.name for s in chosen].index(key[0]), key[1]))],
        targets=[
            common.target(
                f"{of}, as it comes, is at most Adam's at 0.001",
                f">= {len(chosen)}",
                wins("learned, as it comes", "adam, 0.001"),
            ),
            common.target(
                f"{of}, as it comes, is at most tuned Adam's",
                f">= {len(chosen)}",
                wins("learned, as it comes", "adam, tuned"),
            ),
            common.target(
                f"{of}, tuned, is at most tuned Adam's", f">= {len(chosen)}", wins("learned, tuned", "adam, tuned")
            ),
            common.target(
                f"{of}, tuned, is at most tuned SGD's", f">= {len(chosen)}", wins("learned, tuned", "sgd, tuned")
            ),
        ],
    )
    common.show(tree["rows"])
    if not quick:
        common.save(tree)
    return tree


if __name__ == "__main__":
    main("--quick" in sys.argv)
