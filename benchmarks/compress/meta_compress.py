"""Few-shot accuracy of a learner at 2, 4, 8 and 16 times fewer multiply-accumulates, by how it was pruned and taught.

mapsto bench meta_compress --only omniglot

Every way prunes the same learner to the same work and is trained on the same number of tasks. `magnitude`, `taylor` and torch-pruning's
own group magnitude and group Taylor go on with episodic training, as one would without a teacher; `ours` is `prune.meta` by importance
per cost, `prune.reconstruct` and `distill.meta`. `taylor, distil` and `ours, episodes` tell which half does it. Test classes are never
trained on, choices were made on the validation classes; the figure is 5-way 1-shot. A trial that is done is kept (`_shared.Cells`), so
that whoever stops goes on with the same command; rows that were never run say so.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import common
import numpy as np
import torch
from compress import _shared

from mapsto import datasets, distill, evaluate, meta, networks, prune
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping as AnyMapping
from mapsto.nn.profile.counts import count_macs
from mapsto.nn.prune.dependency_groups import find_groups
from mapsto.nn.prune.structured import Ranked
from mapsto.run.executor import execute

RATIOS = (2, 4, 8, 16)
WAYS = (
    "magnitude",
    "taylor",
    "torch-pruning magnitude",
    "torch-pruning taylor",
    "taylor, distil",
    "ours, episodes",
    "ours",
)


PEERS = ("magnitude", "taylor", "torch-pruning magnitude", "torch-pruning taylor")
SEEDS = (0, 1, 2)


def splits(name: str) -> dict[str, Any]:
    if name == "omniglot":
        return {split: datasets.omniglot(split=split, rotations=True) for split in ("train", "validation", "test")}
    return {split: datasets.cifar_fs(split=split) for split in ("train", "validation", "test")}


class ByTorchPruning(AnyMapping[Network, Network]):
    """The channels that torch-pruning would keep, of a learner, at a share of its multiply-accumulates."""

    share: float = 0.5
    taylor: bool = False
    tasks: Any = None

    def apply(self, value: Network, ctx: Context) -> Network:
        module, example = value.module(), torch.zeros(value.signature.input_shape(2))
        groups = find_groups(module, example, embedding=True).groups
        found = Ranked(network=value, groups=tuple(groups), scores={})
        whole = count_macs(module, example)
        low, high, best = 0.0, 0.98, None
        for _ in range(12):
            middle = (low + high) / 2
            small = found.shrunk(self._kept(value, middle, groups, ctx))
            if count_macs(small.module(), example) / whole <= self.share:
                best, high = small, middle
            else:
                low = middle
        if best is None:
            raise DomainError("torch-pruning cannot make it as small", where="meta_compress")
        return best

    def _kept(self, value: Network, ratio: float, groups: Any, ctx: Context) -> dict[str, Any]:
        import torch_pruning  # a peer, with the extra dev

        from mapsto.nn.meta.adaptation_methods import CENTROID
        from mapsto.nn.meta.query_loss import adapted_loss
        from mapsto.nn.train.batches import task_of

        module = value.module().requires_grad_(True)
        names = {part: path for path, part in module.named_modules()}
        importance = torch_pruning.importance
        criterion = importance.GroupTaylorImportance() if self.taylor else importance.GroupMagnitudeImportance(p=2)
        pruner = torch_pruning.pruner.BasePruner(
            module,
            torch.zeros(value.signature.input_shape(2)),
            importance=criterion,
            pruning_ratio=ratio,
            max_pruning_ratio=0.98,
            global_pruning=True,
        )
        if self.taylor:
            episodes = ctx.tasks(self.tasks)
            for number in range(20):
                task = task_of([episodes[number]])
                adapted_loss(module, value.adaptation or CENTROID, task, value.signature.preprocessing).backward()
        kept = {group.name: np.ones(group.channels, np.bool_) for group in groups}
        for group in pruner.step(interactive=True):
            dependency, indices = group[0]
            name = names[dependency.target.module]
            if name in kept:
                kept[name][list(indices)] = False
        return kept


def pruned(way: str, share: float, tasks: Any, learner: Network) -> AnyMapping[Network, Network]:
    budget: dict[str, Any] = {"macs": share, "prune_embedding": True, "min_channels": 2}
    if way.startswith("torch-pruning"):
        return ByTorchPruning(share=share, taylor=way.endswith("taylor"), tasks=tasks)
    if way.startswith("ours"):
        chosen = prune.meta(tasks=tasks, ranking="per_cost", max_prune=1 - share / 2, **budget)
        return chosen >> prune.reconstruct(teacher=learner, tasks=tasks)
    return prune.magnitude(**budget) if way == "magnitude" else prune.taylor(tasks=tasks, **budget)


def main(quick: bool = False, only: str = "omniglot") -> dict[str, Any]:
    name = only or "omniglot"
    if name not in ("omniglot", "cifarfs"):
        raise DomainError(f"no data set '{name}' here", hint="omniglot or cifarfs")
    data = splits(name)
    train_tasks = datasets.episodes(data=data["train"], ways=20, shots=1, queries=4)
    test = datasets.episodes(data=data["test"], ways=5, shots=1, queries=15, seed=1)
    settings: dict[str, Any] = {
        "tasks_per_step": 1,
        "leave_one_out": True,
        "optimizer": "adamw",
        "schedule": "onecycle",
    }
    distill_tasks = datasets.episodes(data=data["train"], ways=60, shots=1, queries=4)
    whole, tuning = (3, 3) if quick else (3000, 1000)
    cells = _shared.Cells("meta_compress", quick=quick)
    judge = evaluate.episodes(tasks=test, episodes=20 if quick else 1000)

    def measure_all(seed: int) -> None:
        ctx = Context(seed=seed)

        @functools.cache
        def learner() -> Network:
            base = networks.conv4(data=data["train"]) >> meta.protonet(
                tasks=distill_tasks,
                steps=whole,
                epoch=max(whole // 5, 1),
                learning_rate=2e-3,
                weight_decay=0.01,
                **settings,
            )
            return execute(base, store=cells.folder / "store", seed=seed).value()

        def compressed(way: str, ratio: int) -> dict[str, Any]:
            small = ctx.apply(pruned(way, 1 / ratio, train_tasks, learner()), learner())
            taught = _taught(way, small, learner(), distill_tasks, tuning, settings, ctx)
            return {"pruned": _judged(judge, small, ctx)["taught"], **_judged(judge, taught, ctx)}

        cells.measured((name, "uncompressed", 1, seed), lambda: _judged(judge, learner(), ctx))
        for ratio in RATIOS[:1] if quick else RATIOS:
            for way in WAYS:
                cells.measured((name, way, ratio, seed), functools.partial(compressed, way, ratio))

    for seed in SEEDS[:1] if quick else SEEDS:
        measure_all(seed)
    return _result(name, cells, quick)


def _taught(
    way: str,
    small: Network,
    learner: Network,
    distill_tasks: Any,
    steps: int,
    settings: Mapping[str, Any],
    ctx: Context,
) -> Network:
    common_fields: dict[str, Any] = {
        "tasks": distill_tasks,
        "steps": steps,
        "epoch": steps,
        "learning_rate": 2e-3,
        "weight_decay": 1e-4,
    }
    if way in ("ours", "taylor, distil"):
        step: Any = distill.meta(teacher=learner, **common_fields, **settings)
    else:
        step = meta.protonet(**common_fields, **settings)
    ctx.seed_everything("teach")
    live = step.open(small, None, ctx)
    items = step.items(small, ctx)
    while not live.done:
        live.advance(items[live.step])
    return live.result()


def _judged(judge: Any, network: Network, ctx: Context) -> dict[str, float]:
    accuracy = ctx.apply(judge, network).metrics["accuracy"]
    return {"taught": accuracy.value, "ci95 over episodes": accuracy.ci95 or 0.0}


def _result(name: str, cells: _shared.Cells, quick: bool) -> dict[str, Any]:
    def found(way: str, ratio: int) -> list[dict[str, Any]]:
        trials = (cells.get(name, way, ratio, seed) for seed in SEEDS)
        return [trial for trial in trials if trial is not None]

    def row(way: str, ratio: int) -> dict[str, Any]:
        trials = found(way, ratio)
        return {
            "way": way,
            "ratio": ratio,
            "pruned": None if ratio == 1 else _shared.summary(trials, "pruned"),
            "taught": _shared.summary(trials, "taught"),
            "ci95 over seeds": _shared.half(trials, "taught"),
            "ci95 over episodes": trials[0].get("ci95 over episodes") if trials else None,
            "seeds": len(trials),
        }

    rows = [row("uncompressed", 1), *(row(way, ratio) for ratio in RATIOS for way in WAYS)]
    means = {(each["way"], each["ratio"]): each["taught"] for each in rows}
    targets: list[dict[str, Any]] = []
    for ratio in RATIOS:
        ours = means["ours", ratio]
        others = [means[way, ratio] for way in PEERS]
        known = not any(isinstance(value, str) for value in (ours, *others))
        targets.append(
            common.target(
                f"points above the best other way, {name}, {ratio}×", ">= 0", ours - max(others) if known else None
            )
        )
        if ratio == 8 and name == "omniglot":
            lost = None if isinstance(ours, str) else means["uncompressed", 1] - ours
            targets.append(common.target("points lost at 8×, omniglot", "<= 1", lost))
    tree = common.result(f"meta_compress_{name}", conditions={"quick": quick}, rows=rows, targets=targets)
    return common.finished(tree, quick=quick)


if __name__ == "__main__":
    main("--quick" in sys.argv)
