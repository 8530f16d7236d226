"""Five networks at three quarters and half of their multiply-accumulates: ours and torch-pruning's, before training and after an epoch.

mapsto bench prune_networks --only DS-CNN
PYTHONPATH=benchmarks python benchmarks/compress/prune_networks.py --only ViT

`ours` are `prune.magnitude`, `prune.taylor` and `prune.best` with their defaults. Torch-pruning (1.6.1) has its group magnitude, its group
Taylor and its group norm (as its own benchmarks set them), each with local and with global ranking; whoever looks at images looks at
1,280 training images. A seed draws these images and the order of training; what looks at none is the same for all seeds before training.
Before training all six are measured; after an epoch the two that were best before, by the same test samples. So the peer's best is
chosen on the test set and ours is not: each mapping of ours has one row. The epoch is one of `EPOCH` training images with their labels,
the same loop for all.

Torch-pruning breaks on the padded shortcuts of ResNet-20; there, and in the ViT, it is told to leave the layers whole that mapsto leaves
whole, so that both choose among the same channels. The five networks are those of `_starting_networks`. A trial that is done is kept
(`_shared.Cells`); rows that were never run say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import common
import torch
from compress import _shared
from compress._starting_networks import STARTS, Trained, trained
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mapsto import prune
from mapsto.context import Context, Numerics
from mapsto.errors import DomainError
from mapsto.kinds import trusting
from mapsto.nn.network.inference import compact
from mapsto.nn.profile.counts import count_macs
from mapsto.nn.prune.dependency_groups import find_groups

SHARES = (0.75, 0.5)
SEEDS = (0, 1, 2)
LOOKED_AT = 1280
EPOCH = 2560
"""Training images of the epoch, 20 steps."""
JUDGED = 2000
"""Test samples."""
RATES = {"ViT": 3e-4}
"""Learning rate of the epoch; 0.01 of SGD where none is named, AdamW for the transformer."""
OURS = ("prune.magnitude", "prune.taylor", "prune.best")
PEERS = tuple(
    f"torch-pruning {criterion}, {ranking}"
    for criterion in ("magnitude", "taylor", "group norm")
    for ranking in ("local", "global")
)
WITHOUT_DATA = tuple(peer for peer in PEERS if "taylor" not in peer)
KEPT = "kept"
"""What ``--only`` is where nothing is to be measured: the result of the trials that are kept."""
MOST_AFTER = 2
"""How many of torch-pruning's ways are trained."""


def main(quick: bool = False, only: str = "", epochs: int | None = None) -> dict[str, Any]:
    wanted = [name for name in STARTS if only in name]
    if not wanted and only != KEPT:
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join((*STARTS, KEPT)))
    if quick:
        wanted = ["DS-CNN"]
    cells = _shared.Cells("prune_networks", quick=quick)
    seeds, shares = (SEEDS[:1], SHARES[-1:]) if quick else (SEEDS, SHARES)
    for seed in seeds:
        for name in wanted:
            setting = Setting(name, quick=quick)
            for share in shares:
                for way in (*OURS, *(PEERS[1:2] if quick else PEERS)):
                    cells.measured((name, way, share, drawn(way, seed), "before"), setting.before(way, share, seed))
                for way in (*OURS, *best_peers(cells, name, share, seed)):
                    cells.measured((name, way, share, seed, "after"), setting.after(way, share, seed))
    return result(cells, quick=quick, seeds=seeds, shares=shares)


class Setting:
    """One of the networks, with the samples that it is pruned, trained and judged on."""

    def __init__(self, name: str, *, quick: bool) -> None:
        self.name, self._trained = name, trained(name, quick=quick)
        network = self._trained.network
        self.images = _shared.Images.of(self._trained.learn.open(), network, most=512 if quick else EPOCH)
        self.judged = _shared.Images.of(self._trained.test.open(), network, most=500 if quick else JUDGED)
        self._example = torch.zeros(network.signature.input_shape(2))
        self._pruned: dict[tuple[str, float, int], nn.Module] = {}

    def before(self, way: str, share: float, seed: int) -> Callable[[], dict[str, Any]]:
        """Prunes and measures when it is called."""

        def measure() -> dict[str, Any]:
            module = self.pruned(way, share, seed)
            whole = count_macs(self._trained.network.module(), self._example)
            return {
                "accuracy": _shared.accuracy(module, self.judged),
                "macs": count_macs(module.cpu(), self._example) / whole,
                "original": _shared.accuracy(self._trained.network.module(), self.judged),
            }

        return measure

    def after(self, way: str, share: float, seed: int) -> Callable[[], dict[str, Any]]:
        """Prunes, trains for an epoch and measures when it is called."""

        def measure() -> dict[str, Any]:
            module = an_epoch(self.pruned(way, share, seed), self.images, self._trained, self.name, seed)
            return {"accuracy": _shared.accuracy(module, self.judged)}

        return measure

    def pruned(self, way: str, share: float, seed: int) -> nn.Module:
        """A module of at most `share` of the multiply-accumulates, anew."""
        key = way, share, drawn(way, seed)
        if key not in self._pruned:
            self._pruned[key] = self._made(way, share, seed)
        return _shared.copied(self._pruned[key])

    def _made(self, way: str, share: float, seed: int) -> nn.Module:
        network = self._trained.network
        if way in PEERS:
            return by_torch_pruning(self._trained, way, share, self.looked_at(seed))
        looks: dict[str, Any] = {"data": self._trained.learn, "batch_size": 64, "batches": LOOKED_AT // 64}
        criteria: dict[str, Callable[[], Any]] = {
            "prune.magnitude": lambda: prune.magnitude(macs=share),
            "prune.taylor": lambda: prune.taylor(macs=share, **looks),
            "prune.best": lambda: prune.best(macs=share, **looks),
        }
        with trusting("compress"):
            context = Context(seed=seed, numerics=Numerics(device=_shared.device().type))
            return _shared.copied(context.apply(criteria[way](), network).module())

    def looked_at(self, seed: int) -> list[tuple[Tensor, Tensor]]:
        """Batches of images and labels, drawn by the seed."""
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))[:LOOKED_AT]
        return [(self.images.batch(part), self.images.labels[part]) for part in order.split(128)]


def drawn(way: str, seed: int) -> int:
    """The seed, of a way that looks at images; of the others all seeds are one."""
    return seed if way in ("prune.taylor", "prune.best") or "taylor" in way else 0


def an_epoch(module: nn.Module, images: _shared.Images, start: Trained, name: str, seed: int) -> nn.Module:
    """The module after an epoch of the images with their labels, in batches of 128; the rate falls on a cosine."""
    generator = torch.Generator().manual_seed(seed)
    module = compact(module.to(_shared.device())).train()
    rate: torch.optim.Optimizer
    if name in RATES:
        rate = torch.optim.AdamW(module.parameters(), lr=RATES[name], weight_decay=0.05)
    else:
        rate = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    parts = torch.randperm(len(images), generator=generator)[: len(images) // 128 * 128].split(128)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(rate, len(parts))
    for chosen in parts:
        loss = cross_entropy(module(images.batch(chosen, generator if start.crops else None)), images.labels[chosen])
        rate.zero_grad()
        loss.backward()
        rate.step()
        falling.step()
    return module.eval()


def by_torch_pruning(start: Trained, way: str, share: float, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """A module of at most `share` of the multiply-accumulates, by torch-pruning in steps of a hundredth until the budget is met."""
    try:
        import torch_pruning
    except ImportError as error:
        raise DomainError(
            "torch-pruning, which is compared with, is not installed",
            where="benchmark",
            hint="pip install torch-pruning",
        ) from error
    with trusting("compress"):
        module = start.network.module(device=_shared.device()).requires_grad_(True)
    example = torch.zeros(start.network.signature.input_shape(2), device=_shared.device())
    kinds, criterion = torch_pruning.importance, way.removeprefix("torch-pruning ").partition(",")[0]
    importance = {
        "magnitude": lambda: kinds.GroupMagnitudeImportance(p=2),
        "taylor": lambda: kinds.GroupTaylorImportance(),
        "group norm": lambda: kinds.GroupMagnitudeImportance(p=2, normalizer="max"),
    }[criterion]()
    algorithms = torch_pruning.pruner
    pruner = (algorithms.GroupNormPruner if criterion == "group norm" else algorithms.BasePruner)(
        module,
        example,
        importance=importance,
        pruning_ratio=1.0,
        max_pruning_ratio=0.95,
        iterative_steps=100,
        global_pruning=way.endswith("global"),
        ignored_layers=[module.get_submodule(path) for path in left_whole(start)],
    )
    if criterion == "taylor":  # what is pruned takes its gradients along
        for images, labels in batches:
            cross_entropy(module(images), labels).backward()
    whole = count_macs(module, example)
    for _ in range(100):
        if count_macs(module, example) <= share * whole:
            return module.requires_grad_(True)
        pruner.step()
    raise DomainError(f"torch-pruning cannot reach {share:.0%} of the work", where="benchmark")


def left_whole(start: Trained) -> list[str]:
    """Paths of the layers whose channels mapsto leaves whole: the classifier, and what runs along padded shortcuts or meets attention."""
    with trusting("compress"):
        module = start.network.module()
    return list(find_groups(module, torch.zeros(start.network.signature.input_shape(2))).whole)


def best_peers(cells: _shared.Cells, name: str, share: float, seed: int) -> list[str]:
    """Torch-pruning's ways that were best before training, the best first."""
    found = {way: cells.get(name, way, share, drawn(way, seed), "before") for way in PEERS}
    ran = {way: trial["accuracy"] for way, trial in found.items() if trial is not None}
    return sorted(ran, key=lambda way: -ran[way])[:MOST_AFTER]


def result(cells: _shared.Cells, *, quick: bool, seeds: tuple[int, ...], shares: tuple[float, ...]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for name in STARTS:
        for share in shares:
            found: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for way in (*OURS, *PEERS):
                for when in ("before", "after"):
                    chosen = {drawn(way, seed) if when == "before" else seed: None for seed in seeds}
                    trials = (cells.get(name, way, share, seed, when) for seed in chosen)
                    found[way, when] = [trial for trial in trials if trial is not None]
                rows.append(
                    {
                        "network": name,
                        "share": share,
                        "way": way,
                        "before training": _shared.summary(found[way, "before"], "accuracy"),
                        "ci95 before": _shared.half(found[way, "before"], "accuracy"),
                        "after an epoch": _shared.summary(found[way, "after"], "accuracy"),
                        "ci95 after": _shared.half(found[way, "after"], "accuracy"),
                        "seeds": len(found[way, "after"]) or len(found[way, "before"]),
                        "measured share": _shared.summary(found[way, "before"], "macs"),
                        "original": _shared.summary(found[way, "before"], "original"),
                    }
                )
            for when, words in (("before", "before training"), ("after", "after an epoch")):
                for way, peers, whose in (
                    ("prune.best", PEERS, "torch-pruning's best"),
                    ("prune.taylor", PEERS, "torch-pruning's best"),
                    ("prune.magnitude", WITHOUT_DATA, "torch-pruning's best without data"),
                ):
                    what = f"{name} at {share}, {words}: points of {way} above {whose}"
                    targets.append(common.target(what, ">= 0", above(found, way, peers, when)))
    tree = common.result(
        "prune_networks",
        conditions={
            "seeds": list(seeds),
            "judged on": f"{JUDGED} test samples",
            "epoch": f"{EPOCH} training samples, labels, the last weights",
            "networks": {name: dataclasses.asdict(_Made.of(name)) for name in STARTS},
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a starting network is, for the result file."""

    factory: str
    arguments: dict[str, Any]
    epochs: int

    @classmethod
    def of(cls, name: str) -> _Made:
        start = STARTS[name]
        return cls(start.factory, start.arguments, start.epochs)


def above(
    found: dict[tuple[str, str], list[dict[str, Any]]], way: str, peers: tuple[str, ...], when: str
) -> float | None:
    """Mean accuracy of a way of ours less that of the best of the peers; None where one that counts was not run."""
    means = [_shared.summary(found[peer, when], "accuracy") for peer in peers if found[peer, when]]
    if not found[way, when] or len(means) < (len(peers) if when == "before" else 1):
        return None
    return float(_shared.summary(found[way, when], "accuracy")) - max(map(float, means))


if __name__ == "__main__":
    main(**_shared.arguments())
