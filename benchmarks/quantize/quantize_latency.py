"""What quantizing costs and buys on a CPU: accuracy on CIFAR-10's test images, and one image at a time on one thread in ONNX Runtime.

Trained ResNets (Y. Idelbayev's weights) in float and by each way of quantizing, beside ONNX Runtime's own `quantize_static` in the
same run; VGG-16 for its time alone, there are no trained weights of it. "ResNet-20 by runtime" is the same network in every runtime that
is installed, the choice of `export.best` (made on its own measurement, judged on this one), and what NNCF in OpenVINO, torchao in
ExecuTorch and ONNX Runtime's quantizer make of it.

mapsto bench quantize_latency
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
import torch
from compress import _shared

from mapsto import datasets, export, networks, quantize
from mapsto.errors import MissingExtra
from mapsto.kinds import Network, Samples
from mapsto.nn import runtime
from mapsto.nn.onnx_export import example_inputs, runner, to_onnx
from mapsto.nn.preprocess import prepare
from mapsto.nn.runtime import Run
from mapsto.nn.timing import Timing, interleaved, speedup

IMAGES, SAMPLES = 2000, 512
"""Test images that accuracy is measured on, and training images that ranges are read off; a tenth and an eighth with --quick."""


RUNTIMES = "ResNet-20 by runtime"
PARTS = ("ResNet-20", "ResNet-20 at 4 bits", RUNTIMES, "ResNet-56", "VGG-16")
PEERS = ("onnxruntime quantize_static", "nncf in openvino", "torchao in executorch")


class Opened(NamedTuple):
    """A model at hand."""

    run: Run
    size: int
    note: str = ""


Made = Network | bytes | Opened


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
        ways: dict[str, Callable[[], Made]] = {
            "float": lambda: network,
            "static": lambda: quantize.static(data=train, samples=samples)(network, seed=0),
            "onnxruntime quantize_static": lambda: _by_onnxruntime(network, train, samples),
        }
        return _compared(f"{part}, untrained", network, ways, None, quick=quick)
    depth = int(part.split(maxsplit=1)[0].partition("-")[2])
    network = _shared.resnet(depth)(seed=0)
    test = datasets.cifar10(split="test").open()
    test = test.take(np.random.default_rng(0).permutation(len(test))[: IMAGES // 10 if quick else IMAGES])
    ways = _runtimes(network, train, quick) if part == RUNTIMES else _ways(network, train, part, quick)
    return _compared(part, network, ways, test, quick=quick)


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
    best = found.get((RUNTIMES, "export.best"))
    rivals = [row["p50 ms"] for row in rows if row["network"] == RUNTIMES and row["way"] in PEERS and "p50 ms" in row]
    shown = min(rivals) / best["p50 ms"] if best and rivals else None
    targets.append(common.target("ResNet-20, export.best: times as fast as the fastest peer", ">= 0.97", shown))
    tree = common.result(
        "quantize_latency",
        conditions={
            "threads": 1,
            "batch": 1,
            "runtime": "ONNX Runtime, where the row names no other",
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


def _ways(network: Network, train: Any, part: str, quick: bool) -> dict[str, Callable[[], Made]]:
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

    def ways(bits: int, measured: int, max_drop: float) -> dict[str, Callable[[], Made]]:
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
    ways: dict[str, Callable[[], Made]],
    test: Samples | None,
    *,
    quick: bool,
) -> list[dict[str, Any]]:
    """A row for each way: accuracy one image at a time in ONNX Runtime, time, how many times as fast as float, bytes."""
    calls: dict[str, Callable[..., Any]] = {}
    sizes: dict[str, int] = {}
    seconds: dict[str, float] = {}
    notes: dict[str, str] = {}
    for way, make in ways.items():
        began = time.perf_counter()
        try:
            result = make()
        except (MissingExtra, ModuleNotFoundError) as error:
            notes[way] = f"not here: {error}"
            print(f"{name}, {way}: {notes[way]}", flush=True)
            continue
        seconds[way] = time.perf_counter() - began
        if isinstance(result, Opened):
            calls[way], sizes[way], notes[way] = result
        else:
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
    for way in ways:
        if way not in calls:
            rows.append({"network": name, "way": way, "note": notes[way]})
            continue
        call = calls[way]
        accuracy = None if test is None else _accuracy(call, test, network)
        row = _row(name, way, accuracy, timings, sizes[way], seconds[way])
        rows.append(row | {"note": notes[way]} if notes.get(way) else row)
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

    inputs = _calibration(network, train, samples).numpy()
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


def _runtimes(network: Network, train: Any, quick: bool) -> dict[str, Callable[[], Made]]:
    """The float and the int8 network in each runtime, the fastest of them by its own measurement, and the peers."""
    samples = 64 if quick else SAMPLES
    made: list[Network] = []

    def static() -> Network:
        if not made:
            made.append(quantize.static(data=train, samples=samples)(network, seed=0))
        return made[0]

    def in_runtime(name: str, make: Callable[[], Network]) -> Callable[[], Made]:
        return lambda: _lowered(name, make())

    others = [name for name in runtime.names() if name != "onnxruntime"]
    ways: dict[str, Callable[[], Made]] = {"float": lambda: network, "static": static}
    for name in others:
        ways[f"float in {name}"] = in_runtime(name, lambda: network)
        ways[f"static in {name}"] = in_runtime(name, static)
    return ways | {
        "export.best": lambda: _best(static(), train, quick),
        "onnxruntime quantize_static": lambda: _by_onnxruntime(network, train, samples),
        "nncf in openvino": lambda: _by_nncf(network, train, samples),
        "torchao in executorch": lambda: _by_torchao(network, train, samples),
    }


def _lowered(name: str, network: Network) -> Opened:
    folder = Path(tempfile.mkdtemp())
    run = runtime.run_network(name, network, folder)
    return Opened(run, sum(path.stat().st_size for path in folder.iterdir()))


def _best(network: Network, train: Any, quick: bool) -> Opened:
    package = export.best(data=train, samples=64 if quick else 200)(network)
    manifest = package.manifest()
    reasons = [f"{name}: {found['left_out']}" for name, found in manifest["candidates"].items() if "left_out" in found]
    size = manifest["candidates"][manifest["chosen"]]["bytes"]
    return Opened(runtime.run_package(package), size, "; ".join([f"chose {manifest['chosen']}", *reasons]))


def _calibration(network: Network, train: Any, samples: int) -> torch.Tensor:
    opened = train.open()
    chosen = np.random.default_rng(0).permutation(len(opened))[:samples]
    return prepare(opened.inputs[chosen], network.signature.preprocessing)


def _by_nncf(network: Network, train: Any, samples: int) -> Opened:
    """NNCF's own, its default preset for convolutional networks, on OpenVINO's form of the same float file."""
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry
    import nncf
    import openvino

    inputs = _calibration(network, train, samples).numpy()
    model = nncf.quantize(
        openvino.Core().read_model(to_onnx(network)),
        nncf.Dataset([inputs[i : i + 1] for i in range(len(inputs))]),
        subset_size=samples,
    )
    folder = Path(tempfile.mkdtemp())
    openvino.serialize(model, folder / "model.xml")
    files = {path.name: path for path in folder.iterdir()}
    return Opened(runtime.find("openvino").load(files), sum(path.stat().st_size for path in files.values()))


def _by_torchao(network: Network, train: Any, samples: int) -> Opened:
    """torchao's PT2E with ExecuTorch's quantizer for XNNPACK, on the same float network."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = example_inputs(network.signature, 1)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    watched = prepare_pt2e(torch.export.export(network.module().eval(), example).module(), quantizer)
    for sample in _calibration(network, train, samples).split(1):
        watched(sample)
    program = torch.export.export(convert_pt2e(watched), example)
    content = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
    path = Path(tempfile.mkdtemp()) / "model.pte"
    path.write_bytes(content)
    return Opened(runtime.find("executorch").load({path.name: path}), len(content))


if __name__ == "__main__":
    main("--quick" in sys.argv)
