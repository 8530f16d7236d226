"""What quantizing costs and buys on a CPU: accuracy on CIFAR-10's test images, and one image at a time on one thread in ONNX Runtime.

Trained ResNets (Y. Idelbayev's weights) in float and by each way of quantizing, beside ONNX Runtime's own `quantize_static` in the
same run; VGG-16 for its time alone, there are no trained weights of it.

mapsto bench quantize_latency
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from mapsto import datasets, networks, quantize
from mapsto.kinds import Network, Samples
from mapsto.nn.onnx_export import runner, to_onnx
from mapsto.nn.preprocess import prepare
from mapsto.nn.timing import Timing, interleaved, speedup

PREPROCESSING = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""As in the weights' own training."""
WEIGHTS = {20: "weights/cifar10_resnet20-12fca82f.th", 56: "weights/cifar10_resnet56-4bfd9763.th"}
PEERS = ("nncf", "torchao", "openvino")


IMAGES, SAMPLES = 2000, 512
"""Test images that accuracy is measured on, and training images that ranges are read off; a tenth and an eighth with --quick."""


PARTS = ("ResNet-20", "ResNet-20 at 4 bits", "ResNet-56", "VGG-16")


def main(quick: bool = False) -> dict[str, Any]:
    rows = [row for part in PARTS for row in measured(part, quick)]
    return assembled(rows, quick)


def measured(part: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one network: every way in turn, in one process."""
    torch.set_num_threads(1)
    train = datasets.cifar10(split="train")
    if part == "VGG-16":
        network = networks.vgg(depth=16, data=train)(seed=0)
        samples = 64 if quick else SAMPLES // 4  # no accuracy hangs on it
        ways: dict[str, Callable[[], Network | bytes]] = {
            "float": lambda: network,
            "static": lambda: quantize.static(data=train, samples=samples)(network, seed=0),
            "onnxruntime quantize_static": lambda: _by_onnxruntime(network, train, samples),
        }
        return _compared(f"{part}, untrained", network, ways, None, quick=quick)
    depth = int(part.split(maxsplit=1)[0].partition("-")[2])
    network = networks.checkpoint(
        factory="mapsto.nn.networks.resnet_cifar:resnet_cifar",
        arguments={"depth": depth},
        file=WEIGHTS[depth],
        data=train,
        **PREPROCESSING,
    )(seed=0)
    test = datasets.cifar10(split="test").open()
    test = test.take(np.random.default_rng(0).permutation(len(test))[: IMAGES // 10 if quick else IMAGES])
    return _compared(part, network, _ways(network, train, part, quick), test, quick=quick)


def assembled(rows: list[dict[str, Any]], quick: bool) -> dict[str, Any]:
    """The result of all rows, with its goals."""
    found = {(row["network"], row["way"]): row for row in rows}
    targets: list[dict[str, Any]] = []
    for part in ("ResNet-20", "ResNet-56"):
        drop = found[part, "float"]["accuracy"] - found[part, "static"]["accuracy"]
        targets.append(common.target(f"{part}, static: points below float", "<= 0.3", drop))
    for part in ("ResNet-56", "VGG-16, untrained"):
        fast = found[part, "static"]["times as fast"] if (part, "static") in found else None
        targets.append(common.target(f"{part}, static: times as fast as float", ">= 2.5", fast))
    rows = [*rows, *(_peer(name) for name in PEERS)]
    tree = common.result(
        "quantize_latency",
        conditions={
            "threads": 1,
            "batch": 1,
            "runtime": "ONNX Runtime",
            "test images": IMAGES // 10 if quick else IMAGES,
            "calibration samples": 64 if quick else SAMPLES,
            "seed": 0,
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    common.show(rows)
    common.show(targets)
    if not quick:
        common.save(tree)
    return tree


def _ways(network: Network, train: Any, part: str, quick: bool) -> dict[str, Callable[[], Network | bytes]]:
    """Way → what makes the network or file."""
    few = {"data": train, "samples": 64 if quick else SAMPLES}
    rounding = {"data": train, "samples": 256, "steps": 100}
    if quick:
        rounding |= {"samples": 64, "steps": 3}
    made: dict[int, Network] = {}

    def static(bits: int) -> Network:
        if bits not in made:
            made[bits] = quantize.static(**few, bits=bits)(network, seed=0)
        return made[bits]

    def ways(bits: int, measured: int, max_drop: float) -> dict[str, Callable[[], Network | bytes]]:
        return {
            "float": lambda: network,
            "static": lambda: static(bits),
            "equalise, static": lambda: (quantize.equalise() >> quantize.static(**few, bits=bits))(network, seed=0),
            "static, correct_bias": lambda: quantize.correct_bias(**few)(static(bits), seed=0),
            f"static, adaround ({rounding['steps']} steps a layer)": lambda: quantize.adaround(**rounding)(
                static(bits), seed=0
            ),
            f"static, mixed (max_drop {max_drop})": lambda: quantize.mixed(
                data=train, samples=64 if quick else measured, max_drop=50 if quick else max_drop
            )(static(bits), seed=0),
        }

    if part == "ResNet-20 at 4 bits":
        return ways(4, 300, 5.0)
    eight = ways(8, 500, 0.3)
    if part == "ResNet-56":  # it takes minutes, and rounding is not what costs accuracy at 8 bits
        eight = {way: make for way, make in eight.items() if "adaround" not in way}
    return eight | {
        "static, entropy": lambda: quantize.static(**few, observer="entropy")(network, seed=0),
        "dynamic": lambda: quantize.dynamic()(network, seed=0),
        "weight_only, 4 bits": lambda: quantize.weight_only(bits=4, observer="mse")(network, seed=0),
        "onnxruntime quantize_static": lambda: _by_onnxruntime(network, train, few["samples"]),
    }


def _compared(
    name: str,
    network: Network,
    ways: dict[str, Callable[[], Network | bytes]],
    test: Samples | None,
    *,
    quick: bool,
) -> list[dict[str, Any]]:
    """A row for each way: accuracy one image at a time in ONNX Runtime, time, how many times as fast as float, bytes."""
    calls: dict[str, Callable[..., Any]] = {}
    sizes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for way, make in ways.items():
        began = time.perf_counter()
        result = make()
        seconds[way] = time.perf_counter() - began
        model = result if isinstance(result, bytes) else to_onnx(result)
        calls[way], sizes[way] = runner(model, threads=1), len(model)
        print(f"{name}, {way}: made in {seconds[way]:.1f} s", flush=True)
    image = torch.randn(network.signature.input_shape(1), generator=torch.Generator().manual_seed(0)).numpy()
    timings = interleaved(
        {way: (lambda call=call: call(image)) for way, call in calls.items()},
        rounds=3 if quick else 5,
        seconds=0.05 if quick else 0.2,
    )
    rows: list[dict[str, Any]] = []
    for way, call in calls.items():
        accuracy = None if test is None else _accuracy(call, test, network)
        rows.append(_row(name, way, accuracy, timings, sizes[way], seconds[way]))
    return rows


def _row(
    name: str, way: str, accuracy: float | None, timings: dict[str, Timing], size: int, made: float
) -> dict[str, Any]:
    ratio, low, high = speedup(timings["float"], timings[way])
    return {
        "network": name,
        "way": way,
        "accuracy": accuracy,
        "p50 ms": timings[way].p50,
        "p99 ms": timings[way].p99,
        "times as fast": ratio,
        "low": low,
        "high": high,
        "kB": size / 1e3,
        "made in s": made,
    }


def _accuracy(call: Callable[..., Any], test: Samples, network: Network) -> float:
    right = 0
    for start in range(0, len(test), 500):
        inputs = prepare(test.inputs[start : start + 500], network.signature.preprocessing).numpy()
        answers = [int(call(inputs[i : i + 1]).argmax()) for i in range(len(inputs))]
        right += int((np.array(answers) == test.labels[start : start + 500]).sum())
    return 100 * right / len(test)


def _by_onnxruntime(network: Network, train: Any, samples: int) -> bytes:
    """ONNX Runtime's own: QDQ, per channel, extremes; on the float file of the same network."""
    import onnxruntime.quantization as peer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    opened = train.open()
    chosen = np.random.default_rng(0).permutation(len(opened))[:samples]
    inputs = prepare(opened.inputs[chosen], network.signature.preprocessing).numpy()
    name = network.signature.inputs[0].name

    class Reader(peer.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{name: inputs[i : i + 1]} for i in range(len(inputs))])

        def get_next(self) -> Any:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (Path(folder) / f"{part}.onnx" for part in ("float", "ready", "int8"))
        given.write_bytes(to_onnx(network))
        quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
        peer.quantize_static(
            str(ready),
            str(made),
            Reader(),
            quant_format=peer.QuantFormat.QDQ,
            per_channel=True,
            activation_type=peer.QuantType.QUInt8,
            weight_type=peer.QuantType.QInt8,
        )
        return made.read_bytes()


def _peer(name: str) -> dict[str, Any]:
    """A peer that is not timed here: no figure, and why."""
    try:
        version = getattr(importlib.import_module(name), "__version__", "?")
        reason = f"version {version} is here, not compared"
    except ImportError as error:
        reason = f"not here: {error}"
    return {"network": "", "way": f"{name} ({reason})"}


if __name__ == "__main__":
    main("--quick" in sys.argv)
