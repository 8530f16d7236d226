"""Pruning, distillation and quantization by one recipe, and the same three steps by separate tools: accuracy at equal latency.

mapsto bench joint --only resnet20
PYTHONPATH=benchmarks python benchmarks/compress/joint.py --only resnet56 --epochs 30

`ours` is ``prune.magnitude >> prune.reconstruct >> distill.logits >> quantize.static``. `separate tools` are torch-pruning (group
Taylor), a plain training loop in PyTorch with the labels, ``torch.onnx.export``, and ONNX Runtime's ``quantize_static`` (QDQ, per
channel); `with a teacher` gives that loop the original as a teacher too. All take the same multiply-accumulates away and train for as
many epochs. Accuracy is that of the int8 files in ONNX Runtime, one image at a time; all files are timed in turn in one process on one
thread, beside the original in PyTorch as its users run it. Which ratio the goals are about (`HEADLINE`) was fixed before any was
measured.

There are trained weights of the ResNets alone; VGG-16 is trained first, which takes a GPU. The form for a CPU is ``--only resnet20``. What
is done is kept (`_shared.Cells`), so that whoever stops goes on with the same command; rows that were never run say so.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from compress import _shared
from torch import nn

from mapsto import datasets, distill, networks, prune, quantize, train
from mapsto.context import Numerics
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.profile.timing import interleaved, speedup, torch_threads
from mapsto.run.executor import execute

NAMES = {"resnet20": "ResNet-20", "resnet56": "ResNet-56", "vgg16": "VGG-16"}
EPOCHS = {"resnet20": 2, "resnet56": 30, "vgg16": 60}
RATIOS = {"resnet20": (2.1, 4.0), "resnet56": (2.1, 4.0), "vgg16": (4.0, 8.0)}
HEADLINE = {"resnet20": 2.1, "resnet56": 2.1, "vgg16": 4.0}
"""How many times fewer multiply-accumulates the goals are about."""
WAYS = ("separate tools", "separate tools with a teacher", "ours")
SEED, SAMPLES = 0, 512


def main(quick: bool = False, only: str = "", epochs: int | None = None) -> dict[str, Any]:
    wanted = [name for name in NAMES if only in name]
    if not wanted:
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join(NAMES))
    if not torch.cuda.is_available():
        wanted = [name for name in wanted if name != "vgg16"] if not quick else wanted[:1]
    if not wanted:
        raise DomainError("VGG-16 has to be trained first, which takes one GPU", hint="--only resnet20, or --quick")
    cells = _shared.Cells("joint", quick=quick, with_models=True)
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for name, network in NAMES.items():
        rounds = 1 if quick else epochs or EPOCHS[name]
        key = (name, "rows", rounds)
        if name in wanted:
            cells.keep(key, {"rows": Trial(name, rounds, cells, quick=quick).rows()})
        kept = cells.get(*key)
        found = kept["rows"] if kept else [{"network": network, "way": way, "accuracy": "not run"} for way in WAYS]
        rows += found
        targets += goals(name, found)
    tree = common.result(
        "joint",
        conditions={
            "threads": 1,
            "batch": 1,
            "runtime": "ONNX Runtime; the original in PyTorch too",
            "seed": SEED,
            "epochs": {name: epochs or EPOCHS[name] for name in NAMES},
            "calibration samples": SAMPLES,
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


class Trial:
    """One network, made small in every way."""

    def __init__(self, name: str, epochs: int, cells: _shared.Cells, *, quick: bool) -> None:
        self._name, self._epochs, self._cells, self._quick = name, epochs, cells, quick
        whole, test = datasets.cifar10(split="train"), datasets.cifar10(split="test")
        self._learn: Any = datasets.subset(data=whole, per_class=30) if quick else whole
        self._source: Any = None
        if name == "vgg16":
            self._source = networks.vgg(depth=16, data=whole, classes="data") >> train.supervised(
                **self._training(1 if quick else 60), smoothing=0.1
            )
        else:
            self._source = _shared.resnet(int(name.removeprefix("resnet")))
        self.original = self._executed(self._source)
        self._test = test.open()
        order = np.random.default_rng(0).permutation(len(self._test))
        self._test = self._test.take(order[: 200 if quick else len(order)])
        self._images = _shared.Images.of(self._learn.open(), self.original)

    def rows(self) -> list[dict[str, Any]]:
        """The original, and each way at each ratio: accuracy, time, bytes."""
        ratios = RATIOS[self._name][:1] if self._quick else RATIOS[self._name]
        found: dict[tuple[str, float], dict[str, Any]] = {}
        for way, ratio in (("original", 1.0), *((way, ratio) for way in WAYS for ratio in ratios)):

            def measure(way: str = way, ratio: float = ratio) -> dict[str, Any]:
                return self._kept(way, ratio, self._made(way, ratio))

            found[way, ratio] = self._cells.measured((self._name, way, ratio, self._epochs, SEED), measure)
        return self._timed(found)

    def _path(self, way: str, ratio: float) -> Path:
        return self._cells.model(self._name, way, ratio, self._epochs, SEED)

    def _kept(self, way: str, ratio: float, model: bytes) -> dict[str, Any]:
        """Keeps a model file, and says how accurate it is one image at a time."""
        self._path(way, ratio).write_bytes(model)
        call, right = runner(model, threads=1), 0
        for start in range(0, len(self._test), 500):
            inputs = prepare(self._test.inputs[start : start + 500], self.original.signature.preprocessing).numpy()
            answers = np.array([int(call(inputs[i : i + 1]).argmax()) for i in range(len(inputs))])
            right += int((answers == self._test.labels[start : start + 500]).sum())
        return {"accuracy": 100 * right / len(self._test), "kB": len(model) / 1e3}

    def _made(self, way: str, ratio: float) -> bytes:
        if way == "original":
            return to_onnx(self.original)
        if way == "ours":
            small = (
                self._source
                >> prune.magnitude(macs=1 / ratio, ranking="per_cost", max_prune=1 - 1 / (2 * ratio))
                >> prune.reconstruct(teacher=self.original, data=self._learn)
                >> distill.logits(teacher=self.original, **self._training(self._epochs))
                >> quantize.static(data=self._learn, samples=SAMPLES)
            )
            return to_onnx(self._executed(small))
        module = _shared.by_torch_pruning(self.original, 1 / ratio, taylor=True, images=self._images)
        teacher = self.original.module() if way.endswith("teacher") else None
        module = _shared.fine_tuned(module, self._images, epochs=self._epochs, seed=SEED, teacher=teacher)
        return quantized(module.cpu(), self._images.batch(slice(0, SAMPLES)).cpu())

    def _training(self, epochs: int) -> dict[str, Any]:
        rate = _shared.learning_rate(epochs, len(self._images))
        return {
            "data": self._learn,
            "epochs": epochs,
            "learning_rate": rate,
            "weight_decay": 5e-4,
            "augment": _shared.CROPS,
        }

    def _executed(self, mapping: Any) -> Network:
        how = {"device": "cuda", "precision": "bf16-mixed"} if torch.cuda.is_available() else {"threads": 1}
        return execute(mapping, store=self._cells.folder / "store", seed=SEED, numerics=Numerics(**how)).value()

    def _timed(self, found: dict[tuple[str, float], dict[str, Any]]) -> list[dict[str, Any]]:
        """All files in turn, and the original in PyTorch."""
        shape = self.original.signature.input_shape(1)
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        eager, array = self.original.module(), image.numpy()
        calls: dict[Any, Any] = {"PyTorch": lambda: eager(image)}
        for way, ratio in found:
            call = runner(self._path(way, ratio).read_bytes(), threads=1)
            calls[way, ratio] = lambda call=call: call(array)
        with torch_threads(1), torch.inference_mode():
            timings = interleaved(calls, rounds=3 if self._quick else 7, seconds=0.05 if self._quick else 0.3)
        rows = [self._row("original, in PyTorch", 1.0, found["original", 1.0]["accuracy"], timings, "PyTorch", None)]
        for (way, ratio), kept in found.items():
            rows.append(self._row(way, ratio, kept["accuracy"], timings, (way, ratio), kept["kB"]))
        return rows

    def _row(
        self, way: str, ratio: float, accuracy: float, timings: dict[Any, Any], key: Any, kilobytes: float | None
    ) -> dict[str, Any]:
        faster, low, high = speedup(timings["PyTorch"], timings[key])
        return {
            "network": NAMES[self._name],
            "way": way,
            "ratio": ratio,
            "accuracy": accuracy,
            "p50 ms": timings[key].p50,
            "times as fast as PyTorch": faster,
            "low": low,
            "high": high,
            "kB": kilobytes,
        }


def quantized(module: nn.Module, images: torch.Tensor) -> bytes:
    """A module by PyTorch's exporter and ONNX Runtime's `quantize_static`."""
    import onnxruntime.quantization as peer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(peer.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"image": images[i : i + 1].numpy()} for i in range(len(images))])

        def get_next(self) -> Any:
            return next(self.batches, None)

    module = module.to(memory_format=torch.contiguous_format).eval()
    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (str(Path(folder) / f"{part}.onnx") for part in ("float", "ready", "int8"))
        example = (images[:1].contiguous(),)
        torch.onnx.export(
            module, example, given, dynamo=True, input_names=["image"], external_data=False, verbose=False
        )
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        peer.quantize_static(
            ready,
            made,
            Reader(),
            quant_format=peer.QuantFormat.QDQ,
            per_channel=True,
            activation_type=peer.QuantType.QUInt8,
            weight_type=peer.QuantType.QInt8,
        )
        return Path(made).read_bytes()


def goals(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours against the separate tools at its own latency, and against the original."""
    network, ratio = NAMES[name], HEADLINE[name]
    ours = next((row for row in rows if row["way"] == "ours" and row.get("ratio") == ratio), None)
    above = lost = faster = None
    if ours is not None:
        whole = next(row for row in rows if row["way"] == "original, in PyTorch")
        above = ours["accuracy"] - at_latency(rows, "separate tools with a teacher", ours)
        lost, faster = whole["accuracy"] - ours["accuracy"], ours["times as fast as PyTorch"]
    return [
        common.target(
            f"{network}, {ratio}×: points above the separate tools with a teacher at equal latency", ">= 0", above
        ),
        common.target(f"{network}, {ratio}×: points below the original", "<= 0.5", lost),
        common.target(f"{network}, {ratio}×: times as fast as the original in PyTorch", ">= 10", faster),
    ]


def at_latency(rows: list[dict[str, Any]], way: str, ours: dict[str, Any]) -> float:
    """The accuracy of a way at the latency of our row: on a line between its points; of its network of the same ratio if ours is faster."""
    theirs = [row for row in rows if row["way"] == way]
    same = next(row for row in theirs if row["ratio"] == ours["ratio"])
    if ours["p50 ms"] <= same["p50 ms"]:
        return same["accuracy"]
    times, values = zip(*sorted((row["p50 ms"], row["accuracy"]) for row in theirs), strict=True)
    return float(np.interp(ours["p50 ms"], times, values))


if __name__ == "__main__":
    main(**_shared.arguments())
