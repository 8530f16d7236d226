"""A small convolutional network and small data that the training tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.context import Context, Numerics
from mapsto.kinds import Dataset, Network, Preprocessing, Samples, trusting
from mapsto.nn.network.build import network_of
from mapsto.process import Process
from mapsto.store import decode_state, encode_state

PREPROCESSING = Preprocessing(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,))


class Small(nn.Module):
    def __init__(self, width: int = 8, classes: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.embedding = 4 * width
        self.classifier = nn.Linear(self.embedding, classes) if classes else nn.Identity()

    def embed(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(self.norm(self.conv(x)).relu(), 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


class Plain(nn.Sequential):
    """Without `embed` or `classifier`: the last linear layer is its head."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3))


class Corners(Dataset):
    """Noisy images with a bright corner, class 0 to 3; learnt in a few steps."""

    per_class: int = 12
    """Images of each class."""
    classes: int = 4
    """How many classes."""
    seed: int = 0
    """Of the noise."""
    labels: str = "classes"
    """Or ``one`` (all of class 0), ``noise`` (drawn at random), ``multilabel``, ``regression``, ``nan`` (float images with a NaN)."""

    def fingerprint(self) -> str:
        return repr(self)

    def open(self) -> Samples:
        random = np.random.default_rng(self.seed)
        labels = np.repeat(np.arange(self.classes), self.per_class)
        images = random.integers(0, 120, (len(labels), 1, 8, 8)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = 4 * (label // 2), 4 * (label % 2)
            image[0, row : row + 4, column : column + 4] += 120
        targets: Any = labels
        names = tuple(f"corner {label}" for label in range(self.classes))
        inputs: Any = images
        if self.labels == "one":
            targets = labels * 0
        elif self.labels == "noise":
            targets = random.permutation(labels)
        elif self.labels == "multilabel":
            targets = np.eye(self.classes, dtype=np.float32)[labels]
        elif self.labels == "regression":
            targets, names = labels[:, None].astype(np.float32) / 2, ("position",)
        elif self.labels == "nan":
            inputs = images / np.float32(255)
            inputs[3, 0, 0, 0] = np.nan
        return Samples(inputs=inputs, labels=targets, classes=names, preprocessing=PREPROCESSING)


def network(classes: int | None = None, seed: int = 0, width: int = 8) -> Network:
    torch.manual_seed(seed)
    with trusting("tests"):
        return network_of("tests.mappings.small:Small", {"width": width, "classes": classes}, PREPROCESSING)


def context(seed: int = 0) -> Context:
    return Context(seed=seed, numerics=Numerics(threads=1))


def trained(
    process: Process[Network, Network], value: Network, *, stop: int | None = None
) -> tuple[Network, list[dict[str, float]]]:
    """The result and the metrics of each step; stopped after `stop` steps, written, read and opened again."""
    ctx = context()
    ctx.seed_everything("start")
    live, items, metrics = process.open(value, None, ctx), process.items(value, ctx), []
    while not live.done:
        ctx.seed_everything(live.step)
        metrics += [dict(row) for _, row in live.advance(items[live.step])]
        if live.step == stop:
            kept = decode_state(encode_state(live.snapshot()))
            assert kept is not None
            ctx = context()
            live, items = process.open(value, kept, ctx), process.items(value, ctx)
    return live.result(), metrics
