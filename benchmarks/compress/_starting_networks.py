"""Five trained networks that pruning starts from, made once: ResNet-20, VGG-16, MobileNetV2 and a small ViT on CIFAR-10, DS-CNN on words.

ResNet-20 has Y. Idelbayev's weights. The others are trained here, on one CPU thread within ten minutes each, so they are narrower than
published and not trained to the end (`STARTS` says how); they are kept in ``$MAPSTO_BENCH/starting_networks``. CIFAR-10's last 5,000
training images are held out from all of them but ResNet-20.

The words are synthetic: a word is a few sounds, a sound is a few bands of energy that move; speakers differ in tempo, pitch and
loudness, and there is noise. A sample is a spectrogram (1, 49, 10), as of one second of speech in ten bands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from compress import _shared
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mapsto import datasets
from mapsto.kinds import Network, trusting
from mapsto.nn.network.inference import compact

FRAMES, BANDS, WORDS = 49, 10, 12
SPOKEN = {"train": 6000, "validation": 1500, "test": 3000}
"""Samples of each split."""


class DsCnn(nn.Module):
    """A convolution, depthwise-separable blocks, global average, one linear layer.

    Zhang, Suda, Lai and Chandra, "Hello Edge: Keyword Spotting on Microcontrollers", 2017, the small form: 64 channels, four blocks.
    """

    def __init__(self, classes: int = WORDS, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = _convolution(1, width, (10, 4), (2, 2), (4, 1))
        for _ in range(blocks):
            layers += [*_convolution(width, width, (3, 3), (1, 1), (1, 1), groups=width)]
            layers += [*_convolution(width, width, (1, 1), (1, 1), (0, 0))]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _convolution(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int = 1,
) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def spoken(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Spectrograms (N, 1, 49, 10) of words and their numbers (N,).

    >>> x, y = spoken(24, 0)
    >>> x.shape, sorted(set(y.tolist())) == list(range(12))
    ((24, 1, 49, 10), True)
    """
    fixed, draw = np.random.default_rng(7), np.random.default_rng(seed)
    sounds = fixed.uniform(0, BANDS - 1, (10, 2, 2))  # of each sound two bands, at its begin and its end
    words = [fixed.choice(10, 4, replace=False) for _ in range(WORDS - 4)]
    for word in words[:4]:  # four that differ from another one in a single sound
        near = word.copy()
        near[fixed.integers(4)] = fixed.choice(np.setdiff1d(np.arange(10), word))
        words.append(near)
    labels = np.arange(count) % WORDS
    draw.shuffle(labels)
    found = np.empty((count, 1, FRAMES, BANDS), np.float32)
    bands = np.arange(BANDS)
    for at, label in enumerate(labels):
        ends = np.cumsum(draw.uniform(0.6, 1.4, 4))
        length = draw.uniform(26, 46)
        times = (np.arange(FRAMES) - draw.uniform(0, FRAMES - length)) / length * ends[-1]
        place = np.searchsorted(ends, times).clip(0, 3)
        within = ((times - np.concatenate([[0], ends])[place]) / np.diff(np.concatenate([[0], ends]))[place]).clip(0, 1)
        begins = sounds[words[label]][place]  # (frames, bands of energy, begin and end)
        centres = begins[..., 0] * (1 - within[:, None]) + begins[..., 1] * within[:, None] + draw.normal(0, 0.5)
        energy = np.exp(-((bands[None, None] - centres[..., None]) ** 2) / (2 * 0.7**2)).sum(1)
        energy *= ((times >= 0) & (times <= ends[-1]))[:, None] * draw.uniform(0.6, 1.4)
        noise = draw.normal(0, 0.35, (FRAMES, BANDS)) + draw.normal(0, 0.2, (1, BANDS))
        found[at, 0] = (energy + noise - 0.35) / 0.55
    return found, labels.astype(np.int64)


class Start(NamedTuple):
    """How a network is made and trained."""

    factory: str
    arguments: dict[str, Any]
    epochs: int
    rate: float
    """The largest learning rate of one cycle."""


STARTS = {
    "ResNet-20": Start("mapsto.nn.networks.resnet_cifar:resnet_cifar", {"depth": 20}, 0, 0),
    "VGG-16": Start("mapsto.nn.networks.vgg:vgg", {"depth": 16, "width": 16}, 4, 0.1),
    "MobileNetV2": Start("mapsto.nn.networks.mobilenet_v2:mobilenet_v2", {"width": 0.5, "small": False}, 4, 0.1),
    "DS-CNN": Start("compress._starting_networks:DsCnn", {}, 6, 0.1),
    "ViT": Start("mapsto.nn.networks.vit:vit", {"depth": 4, "width": 96}, 3, 1e-3),
}


@dataclass(frozen=True, eq=False)
class Trained:
    """A network to prune, and its samples."""

    network: Network
    learn: Any
    """Training data, a `Dataset`."""
    validation: Any
    test: Any
    crops: bool
    """Whether training images are cropped and flipped."""


def folder() -> Path:
    """Where they are kept."""
    path = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")) / "starting_networks"
    path.mkdir(parents=True, exist_ok=True)
    return path


def data_of(name: str) -> dict[str, Any]:
    """Training, validation and test data of a network."""
    if name != "DS-CNN":
        made = {split: datasets.cifar10(split=split, holdout=_shared.HELD_OUT) for split in ("train", "validation")}
        return {**made, "test": datasets.cifar10(split="test")}
    paths = {split: folder() / f"words_{split}.npz" for split in SPOKEN}
    for seed, (split, path) in enumerate(paths.items()):
        if not path.is_file():
            inputs, labels = spoken(SPOKEN[split], seed)
            np.savez(path.with_suffix(".tmp.npz"), inputs=inputs, labels=labels)
            path.with_suffix(".tmp.npz").replace(path)
    return {split: datasets.arrays(file=str(path.resolve())) for split, path in paths.items()}


def trained(name: str, *, quick: bool = False) -> Trained:
    """One of the five, trained now unless it was before; `quick` trains it on a few samples and keeps nothing."""
    start, data = STARTS[name], data_of(name)
    if name == "ResNet-20":
        return Trained(_shared.resnet(20)(seed=0), data["train"], data["validation"], data["test"], crops=True)
    module = _module(start)
    path = folder() / f"{name}.pt"
    if not quick and path.is_file():
        module.load_state_dict(torch.load(path, weights_only=True))
        return _whole(name, module, data)
    _train(module, name, data, quick=quick)
    if not quick:
        torch.save(module.state_dict(), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return _whole(name, module, data)


def _module(start: Start) -> nn.Module:
    import importlib

    torch.manual_seed(0)
    place, _, factory = start.factory.partition(":")
    made: Callable[..., nn.Module] = getattr(importlib.import_module(place), factory)
    return made(**start.arguments)


def _whole(name: str, module: nn.Module, data: dict[str, Any]) -> Trained:
    start, samples = STARTS[name], data["validation"].open()
    shape: Sequence[int] = samples.inputs.shape[1:]
    with trusting("compress"):
        network = Network.from_module(
            module.eval(),
            torch.zeros(1, *shape),
            factory=start.factory,
            arguments=start.arguments,
            preprocessing=samples.preprocessing,
            classes=samples.classes,
        )
    return Trained(network, data["train"], data["validation"], data["test"], crops=name != "DS-CNN")


def _train(module: nn.Module, name: str, data: dict[str, Any], *, quick: bool) -> None:
    """One cycle of SGD with Nesterov momentum, of AdamW for a transformer; batch 128."""
    start = STARTS[name]
    network = _whole(name, module, data).network
    images = _shared.Images.of(data["train"].open(), network, most=512 if quick else None)
    module = compact(module).train()
    rate: torch.optim.Optimizer
    if name == "ViT":
        rate = torch.optim.AdamW(module.parameters(), lr=start.rate, weight_decay=0.05)
    else:
        rate = torch.optim.SGD(module.parameters(), lr=start.rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    per_epoch = len(images) // 128
    cycle = torch.optim.lr_scheduler.OneCycleLR(rate, start.rate, start.epochs * per_epoch, cycle_momentum=False)
    draws = torch.Generator().manual_seed(0)
    for epoch in range(1 if quick else start.epochs):
        for chosen in torch.randperm(len(images), generator=draws)[: per_epoch * 128].split(128):
            batch = images.batch(chosen, draws if name != "DS-CNN" else None)
            loss = cross_entropy(module(batch), images.labels[chosen])
            rate.zero_grad()
            loss.backward()
            rate.step()
            cycle.step()
        print(f"{name}, epoch {epoch + 1} is done", flush=True)
    module.eval()


if __name__ == "__main__":
    for each in sys.argv[1:] or STARTS:
        found = trained(each)
        for split in ("validation", "test"):
            judged = _shared.Images.of(getattr(found, split).open(), found.network)
            print(f"{each}: {_shared.accuracy(found.network.module(), judged):.2f} % of {split}", flush=True)
