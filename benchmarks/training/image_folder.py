"""Batches of a folder of photos from shards, beside torch's DataLoader with Pillow over the same files.

mapsto bench image_folder

Photos are made up, 500 × 375 pixels and about as large as ImageNet's. Both sides give batches of 64 as a network of 224 pixels takes
them, in a new order each pass: short side to 256, the middle 224. The DataLoader decodes each pass; shards are made once, and then read.
CPU time is of the process and of those that it waited for, so that other work on the machine counts for neither side.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mapsto import datasets
from mapsto.context import Context
from mapsto.kinds import Preprocessing, Samples
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.train.batches import Batches
from mapsto.run.prefetch import Prefetched

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HOW = Preprocessing(channels=3, size=(SIZE, SIZE), mean=MEAN, std=STD, fit="crop")


class Photos(TorchDataset[Any]):
    """What a plain loop over files does: Pillow's decoding, the short side to 256, the middle 224, a normalised tensor."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        with Image.open(self.paths[place]) as opened:
            image = opened.convert("RGB")
        factor = 256 / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
        pixels = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)), np.float32).transpose(2, 0, 1) / 255
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
        return torch.from_numpy((pixels - mean) / std)


def photos(folder: Path, count: int) -> list[Path]:
    """So many made-up photos of four classes: blurred noise of several scales, whose JPEGs are about as large as ImageNet's."""
    paths: list[Path] = []
    for number in range(count):
        generator = np.random.default_rng(number)
        layers = [
            np.asarray(
                Image.fromarray(generator.integers(0, 256, (375 // scale + 1, 500 // scale + 1, 3), np.uint8)).resize(
                    (500, 375)
                ),
                np.float32,
            )
            for scale in (2, 8, 64)
        ]
        pixels = 0.3 * layers[0] + 0.3 * layers[1] + 0.4 * layers[2]
        path = folder / f"n{number % 4:08d}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return sorted(paths)


def cpu_seconds() -> float:
    """Of this process and of all that it started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    began, cpu = time.perf_counter(), cpu_seconds()
    call()
    return time.perf_counter() - began, cpu_seconds() - cpu


def decoded(paths: list[Path], workers: int) -> None:
    """A pass of the DataLoader."""
    for batch in DataLoader(Photos(paths), BATCH, shuffle=True, num_workers=workers, drop_last=True):
        require(batch)


def made(folder: Path, cache: Path) -> None:
    """The shards, in a process of its own."""
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], env=os.environ | {"MAPSTO_CACHE": str(cache)}, check=True)


def read(samples: Samples, context: Context) -> None:
    """A pass over the shards, batches ahead in a thread, as a training has them."""
    batches = Batches(samples, BATCH, lambda epoch: context.random("order", epoch), context.fabric)
    with Prefetched(batches, workers=batches.workers) as ahead:
        for step in range(batches.per_epoch):
            require(prepare(ahead[step].inputs, HOW))


def require(batch: torch.Tensor) -> None:
    if batch.shape != (BATCH, 3, SIZE, SIZE):
        raise ValueError(f"a batch of shape {tuple(batch.shape)}")


def main(quick: bool = False) -> dict[str, Any]:
    count, rounds, workers = (128, 1, 1) if quick else (1024, 3, 2)
    times: dict[str, list[tuple[float, float]]] = {"DataLoader": [], "shards made": [], "shards read": []}
    context = Context()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        paths = photos(folder, count)
        size = statistics.mean(path.stat().st_size for path in paths)
        known = os.environ.get("MAPSTO_CACHE")
        try:
            for number in range(rounds):
                cache = Path(name) / f"cache-{number}"
                times["shards made"].append(timed(partial(made, folder, cache)))
                os.environ["MAPSTO_CACHE"] = str(cache)
                samples = datasets.images(folder=str(folder), size=SIZE, fit="crop", kept="shards").open()
                read(samples, context)  # the disk's pages are in memory for both sides
                times["shards read"].append(timed(partial(read, samples, context)))
                times["DataLoader"].append(timed(partial(decoded, paths, workers)))
        finally:
            os.environ.pop("MAPSTO_CACHE", None)
            os.environ.update({} if known is None else {"MAPSTO_CACHE": known})
    rows = [
        {
            "what": f"CPU of one of {count:,} photos of {size / 1000:.0f} kB, {what}",
            "ms": 1e3 * statistics.median(cpu for _, cpu in found) / count,
            "low": 1e3 * min(cpu for _, cpu in found) / count,
            "high": 1e3 * max(cpu for _, cpu in found) / count,
            "images a second": count / statistics.median(wall for wall, _ in found),
        }
        for what, found in times.items()
    ]
    walls, cpus = ({what: [each[part] for each in found] for what, found in times.items()} for part in (0, 1))
    by_clock, by_cpu = (common.ratio(each["DataLoader"], each["shards read"])["ratio"] for each in (walls, cpus))
    making = common.ratio(cpus["shards made"], cpus["DataLoader"])["ratio"]
    targets = [
        common.target("times the images a second of a DataLoader with Pillow, once shards are made", ">= 2", by_clock),
        common.target("times its images a CPU second, once shards are made", ">= 2", by_cpu),
        common.target("CPU of making the shards, in passes of the DataLoader", "<= 2", making),
    ]
    tree = common.result(
        "image_folder",
        conditions={
            "photos": count,
            "rounds": rounds,
            "workers": workers,
            "batch": BATCH,
            "size": SIZE,
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


MAKE = """
import sys
from mapsto import datasets
from mapsto.data.io import image_shards
images = datasets.images(folder=sys.argv[1], size=224, fit="crop", kept="shards")
if __name__ == "__main__":
    images.open()
"""
