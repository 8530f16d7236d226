"""What the benchmarks of compression share: images on the device, one fine-tuning loop for all, a peer's pruning, kept cells."""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mapsto import augment, datasets, networks
from mapsto.data.augment._apply import changed
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing, Samples
from mapsto.nn.distill.divergences import kl
from mapsto.nn.network.inference import compact, evaluating
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.profile.counts import count_macs

HELD_OUT = 5000
"""Training images that choices are made on, and that no run for a result is judged by."""
WEIGHTS = {20: "weights/cifar10_resnet20-12fca82f.th", 56: "weights/cifar10_resnet56-4bfd9763.th"}
PREPROCESSING: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""As in the weights' own training."""
CROPS = (augment.flip(), augment.crop(padding=4))
RATES = {400: 0.01, 4000: 0.02}
"""Learning rate of a fine-tuning of at most so many steps; 0.05 of a longer one. Within a hundred steps the usual 0.05 undoes more than
it mends: of four trials on held-out images 65.2 and 27.0 % against 80.9 and 82.3 with 0.01, 78.8 and 82.0 with 0.003."""


def learning_rate(epochs: int, images: int, batch_size: int = 128) -> float:
    """Of a fine-tuning of so many epochs."""
    return next((rate for most, rate in RATES.items() if epochs * images // batch_size <= most), 0.05)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resnet(depth: int) -> Any:
    """Y. Idelbayev's trained ResNet for CIFAR-10, a source."""
    return networks.checkpoint(
        factory="mapsto.nn.networks.resnet_cifar:resnet_cifar",
        arguments={"depth": depth},
        file=WEIGHTS[depth],
        data=datasets.cifar10(split="test"),
        **PREPROCESSING,
    )


@dataclass(frozen=True, eq=False)
class Images:
    """Samples on the device, as they are stored, and how a network wants them."""

    inputs: Tensor
    labels: Tensor
    preprocessing: Preprocessing

    @classmethod
    def of(cls, samples: Samples, network: Network, *, most: int | None = None) -> Images:
        """The first `most` of the samples in a fixed random order, or all of them."""
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:most]
        inputs, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
        return cls(inputs[order].to(device()), labels[order].to(device()), network.signature.preprocessing)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor | slice, draws: torch.Generator | None = None) -> Tensor:
        """Prepared images, shape (N, C, H, W); with `draws`, on the CPU, cropped and flipped before."""
        inputs = self.inputs[chosen]
        if draws is not None:
            inputs = changed(CROPS, inputs, lambda _: draws)
        return prepare(inputs, self.preprocessing, device=inputs.device)


def accuracy(module: nn.Module, images: Images) -> float:
    """In %, over all images."""
    right = 0
    with evaluating(compact(module.to(device()))), torch.no_grad():
        for start in range(0, len(images), 500):
            part = slice(start, start + 500)
            right += int((module(images.batch(part)).argmax(1) == images.labels[part]).sum())
    return 100 * right / len(images)


def fine_tuned(
    module: nn.Module,
    images: Images,
    *,
    epochs: int,
    seed: int,
    teacher: nn.Module | None = None,
    batch_size: int = 128,
) -> nn.Module:
    """The module after `epochs`, changed in place: SGD with Nesterov momentum, one cosine from `learning_rate`, crops and flips.

    With a teacher the loss is that of `distill.logits` with its defaults, ``0.9 · T² KL + 0.1 · CE`` at T = 4, else cross-entropy.
    """
    torch.manual_seed(seed)
    generator = torch.Generator(device=device()).manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    module = compact(module.to(device())).train()
    if teacher is not None:
        teacher = compact(teacher.to(device())).eval()
    start = learning_rate(epochs, len(images), batch_size)
    rate = torch.optim.SGD(module.parameters(), lr=start, momentum=0.9, nesterov=True, weight_decay=5e-4)
    per_epoch = len(images) // batch_size
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(rate, epochs * per_epoch)
    mixed = torch.autocast("cuda", torch.bfloat16) if device().type == "cuda" else nullcontext()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator, device=device())
        for step in range(per_epoch):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch, labels = images.batch(chosen, draws), images.labels[chosen]
            with mixed:
                answers = module(batch).float()
                loss = cross_entropy(answers, labels)
                if teacher is not None:
                    with torch.no_grad():
                        targets = teacher(batch).float()
                    loss = 0.9 * kl(answers, targets, temperature=4.0) + 0.1 * loss
            rate.zero_grad()
            loss.backward()
            rate.step()
            falling.step()
    return module.eval()


def by_torch_pruning(network: Network, share: float, *, taylor: bool, images: Images) -> nn.Module:
    """A module of at most `share` of the multiply-accumulates, by torch-pruning as its own benchmark does it.

    Global ranking, in steps of a hundredth until the budget is met. It takes the zeros that option-A shortcuts pad with for nothing
    at all, and its networks then fail; the channels that run along the shortcuts are ignored, as they are left whole by
    mapsto, so that both choose among the same channels: those within the blocks.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise DomainError(
            "torch-pruning, which is compared with, is not installed",
            where="benchmark",
            hint="pip install torch-pruning, or choose rows without it by --only",
        ) from error
    module = network.module(device=device()).requires_grad_(True)
    example = torch.zeros(network.signature.input_shape(2), device=device())
    kinds = torch_pruning.importance
    importance = kinds.GroupTaylorImportance() if taylor else kinds.GroupMagnitudeImportance(p=2)
    kept = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if any(path.endswith("shortcut") for path, _ in module.named_modules()):
        kept += [
            part
            for path, part in module.named_modules()
            if isinstance(part, nn.Conv2d) and (path == "conv1" or path.endswith("conv2"))
        ]
    steps = 100
    pruner = torch_pruning.pruner.BasePruner(
        module,
        example,
        importance=importance,
        pruning_ratio=1.0,
        max_pruning_ratio=0.95,
        iterative_steps=steps,
        global_pruning=True,
        ignored_layers=kept,
    )
    if taylor:  # as many images as `prune.taylor` looks at; what is pruned takes its gradients along
        for start in range(0, min(len(images), 1280), 128):
            part = slice(start, start + 128)
            cross_entropy(module(images.batch(part)), images.labels[part]).backward()
    whole = count_macs(module, example)
    for _ in range(steps):
        if count_macs(module, example) <= share * whole:
            return module.requires_grad_(True)
        pruner.step()
    raise DomainError(f"torch-pruning cannot reach {share:.0%} of the work", where="benchmark")


class Cells:
    """Results of single trials, each kept in a small file as it is done, so that the same command goes on after a stop.

    They lie in ``benchmarks/results/trials/<name>``, to be committed, so that a table can grow over many runs; models and stores in
    ``$MAPSTO_BENCH/<name>``, by default ``runs/bench/<name>``, as do all files where the trials' files are needed together with
    their models (`with_models`). With `quick` all is thrown away.
    """

    def __init__(self, name: str, *, quick: bool, with_models: bool = False) -> None:
        self._trial = tempfile.TemporaryDirectory() if quick else None
        self.folder = Path(self._trial.name if self._trial else os.environ.get("MAPSTO_BENCH", "runs/bench")) / name
        self._kept = self.folder if quick or with_models else common.RESULTS / "trials" / name

    def get(self, *key: object) -> dict[str, Any] | None:
        """What was measured; None for a trial that was not run."""
        path = self._path(key)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def measured(self, key: Sequence[object], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What was measured before, or is now."""
        found = self.get(*key)
        if found is None:
            began = time.perf_counter()
            found = {**measure(), "seconds": time.perf_counter() - began, "device": str(device())}
            self.keep(key, found)
        print(", ".join(map(str, key)), {name: value for name, value in found.items() if name != "device"}, flush=True)
        return found

    def keep(self, key: Sequence[object], found: Mapping[str, Any]) -> None:
        """Write what was measured, whole."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = Path(f"{path}.tmp")
        whole.write_text(json.dumps(found) + "\n", encoding="utf-8")
        whole.replace(path)

    def model(self, *key: object) -> Path:
        """Where a trial's model file lies."""
        path = self.folder / f"{self._stem(key)}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _path(self, key: Iterable[object]) -> Path:
        return self._kept / f"{self._stem(key)}.json"

    @staticmethod
    def _stem(key: Iterable[object]) -> str:
        return "-".join(str(part).replace(" ", "_").replace(",", "") for part in key)


def summary(found: Sequence[Mapping[str, Any]], name: str) -> str | float:
    """The mean of one figure over seeds; "not run" without any."""
    return statistics.mean(trial[name] for trial in found) if found else "not run"


def half(found: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The half-width of its 95 % interval over seeds; None for fewer than two."""
    from mapsto.report.build import t95

    return t95([trial[name] for trial in found]) if len(found) > 1 else None


def copied(module: nn.Module) -> nn.Module:
    """A copy that may be trained."""
    return copy.deepcopy(module).requires_grad_(True)


def arguments() -> dict[str, Any]:
    """--quick, --only and --epochs of a script that is run by itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="small settings: shows that it works, writes no result")
    parser.add_argument("--only", default="", help="only rows whose name holds this")
    parser.add_argument("--epochs", type=int, help="epochs of each training")
    return vars(parser.parse_args())
