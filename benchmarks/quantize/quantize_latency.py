"""What quantizing costs and buys on a CPU: accuracy on CIFAR-10's test images, and one image at a time on one thread in ONNX Runtime.

Trained ResNets (Y. Idelbayev's weights) in float and by each way of quantizing, beside ONNX Runtime's own `quantize_static` in the
same run; VGG-16 for its time alone, there are no trained weights of it; pretrained encoders by few-shot accuracy (`_encoders`). "by
runtime" is the same network in every runtime that is installed, the choice of `export.best` (made on its own measurement, judged on this
one), and what NNCF in OpenVINO, torchao in ExecuTorch and ONNX Runtime's quantizer make of it.

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
from numpy.typing import NDArray
from quantize import _encoders

from mapsto import datasets, export, networks, quantize
from mapsto.errors import DomainError, MissingExtra
from mapsto.kinds import Network, Samples
from mapsto.nn.export import registry
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.registry import Run
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto.nn.network.examples import example_inputs
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.profile.timing import interleaved, speedup
from mapsto.nn.quantize.post_training import needs_reduced_range

IMAGES, SAMPLES = 10_000, 512
"""Test images that accuracy is measured on, and training images that ranges are read off; 200 and 64 with --quick."""

RESNETS = {"ResNet-20": 20, "ResNet-56": 56}
VGG = "VGG-16, untrained"
ENCODERS = {"EfficientNet-Lite0": _encoders.efficientnet_lite0, "MiniLM": _encoders.minilm}
FOUR_BITS = "ResNet-20 at 4 bits"
BY_RUNTIME = " by runtime"
PARTS = (*RESNETS, FOUR_BITS, VGG, *ENCODERS, *(f"{name}{BY_RUNTIME}" for name in (*RESNETS, VGG)))
PEERS = ("onnxruntime quantize_static", "nncf in openvino", "torchao in executorch")


class Opened(NamedTuple):
    """A model at hand."""

    run: Run
    size: int
    note: str = ""


Made = Network | bytes | Opened
Ways = dict[str, Callable[[], Made]]
"""Way → what makes the network or file."""


class Subject(NamedTuple):
    """A network, what it is calibrated on, an input to time, and how accurate a model of it is: figures by name."""

    network: Network
    data: Any
    example: NDArray[Any]
    judge: Callable[[Run], dict[str, float]]


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    """Parts that are done are kept, so that a table can grow over many runs; each part is measured in one process."""
    wanted = [part for part in PARTS if only in part]
    if not wanted:
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join(PARTS))
    cells = _shared.Cells("quantize_latency", quick=quick)
    for part in wanted:
        cells.measured((part,), lambda part=part: {"rows": measured(part, quick)})
    rows: list[dict[str, Any]] = []
    for part in PARTS:
        kept = cells.get(part)
        rows += kept["rows"] if kept else [{"network": part, "way": "not run"}]
    tree = common.result(
        "quantize_latency",
        conditions={
            "threads": 1,
            "batch": 1,
            "runtime": "ONNX Runtime, where the row names no other",
            "test images": 200 if quick else IMAGES,
            "encoders": "5-way 5-shot, nearest class mean, unseen classes, 600 episodes",
            "calibration samples": 64 if quick else SAMPLES,
            "seed": 0,
            "quick": quick,
        },
        rows=rows,
        targets=goals(rows),
    )
    common.show(rows)
    common.show(tree["targets"])
    if not quick:
        common.save(tree)
    return tree


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {(row["network"], row["way"]): row for row in rows}

    def figure(part: str, way: str, name: str) -> float | None:
        return found.get((part, way), {}).get(name)

    targets: list[dict[str, Any]] = []
    for part in (*RESNETS, *ENCODERS):
        way = "dynamic" if part == "MiniLM" else "static"
        before, after = figure(part, "float", "accuracy"), figure(part, way, "accuracy")
        drop = None if before is None or after is None else before - after
        targets.append(common.target(f"{part}, {way}: points below float", "<= 0.3", drop))
    for part in ("ResNet-56", VGG):
        for name, way in ((part, "static"), (f"{part}{BY_RUNTIME}", "export.best")):
            shown = figure(name, way, "times as fast")
            targets.append(common.target(f"{part}, {way}: times as fast as float in ONNX Runtime", ">= 2.5", shown))
    for part in (*RESNETS, VGG):
        name = f"{part}{BY_RUNTIME}"
        best = figure(name, "export.best", "p50 ms")
        rivals = [time for peer in PEERS if (time := figure(name, peer, "p50 ms")) is not None]
        shown = min(rivals) / best if best and rivals else None
        targets.append(common.target(f"{part}, export.best: times as fast as the fastest peer", ">= 0.97", shown))
    return targets


def measured(part: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one network: every way in turn, in one process."""
    torch.set_num_threads(1)
    name = part.removesuffix(BY_RUNTIME).removesuffix(" at 4 bits")
    samples = 64 if quick else SAMPLES
    if name in ENCODERS:
        subject, ways = _encoder(name, quick)
    elif name == VGG:
        subject = _cifar(_vgg(), None)
        samples //= 4  # no accuracy hangs on it
        ways = _plain(subject, samples)
    else:
        subject = _cifar(_shared.resnet(RESNETS[name])(seed=0), 200 if quick else IMAGES)
        ways = _ways(subject, part, quick)
    if part.endswith(BY_RUNTIME):
        ways = _runtimes(subject, samples, quick)
    return _compared(part, subject, ways, quick=quick)


def _cifar(network: Network, images: int | None) -> Subject:
    """A network for CIFAR-10, judged on some of its test images or on none."""
    test = datasets.cifar10(split="test").open()
    test = test.take(np.random.default_rng(0).permutation(len(test))[:images])
    example = torch.randn(network.signature.input_shape(1), generator=torch.Generator().manual_seed(0)).numpy()

    def judge(run: Run) -> dict[str, float]:
        return {} if images is None else {"accuracy": _accuracy(run, test, network)}

    return Subject(network, datasets.cifar10(split="train"), example, judge)


def _vgg() -> Network:
    """VGG-16 with weights as they start and the batch statistics of images, without which its outputs hardly differ."""
    train = datasets.cifar10(split="train")
    network = networks.vgg(depth=16, data=train)(seed=0)
    module = network.module().train()
    with torch.no_grad():
        for batch in _calibration(network, train, 512).split(64):
            module(batch)
    return network.with_module(module.eval())


def _encoder(name: str, quick: bool) -> tuple[Subject, Ways]:
    encoder = ENCODERS[name](quick)

    def judge(run: Run) -> dict[str, float]:
        accuracy, half = _encoders.few_shot_accuracy(encoder, run)
        return {"accuracy": accuracy, "ci95": half}

    subject = Subject(encoder.network, encoder.calibration, encoder.inputs(slice(0, 1)), judge)
    if encoder.calibration is not None:
        return subject, _plain(subject, 64 if quick else SAMPLES // 4)
    network = encoder.network
    return subject, {
        "float": lambda: network,
        "dynamic": lambda: quantize.dynamic(layers="linear")(network, seed=0),
        "weight_only, 8 bits": lambda: quantize.weight_only(bits=8)(network, seed=0),
        "weight_only, 4 bits": lambda: quantize.weight_only(bits=4, observer="mse")(network, seed=0),
        "onnxruntime quantize_dynamic": lambda: _by_onnxruntime_dynamic(network),
    }


def _plain(subject: Subject, samples: int) -> Ways:
    network = subject.network
    return {
        "float": lambda: network,
        "static": lambda: quantize.static(data=subject.data, samples=samples)(network, seed=0),
        "static, first convolution in float": lambda: quantize.static(
            data=subject.data, samples=samples, first="float"
        )(network, seed=0),
        "onnxruntime quantize_static": lambda: _by_onnxruntime(network, subject.data, samples),
    }


def _ways(subject: Subject, part: str, quick: bool) -> Ways:
    network, train = subject.network, subject.data
    few = {"data": train, "samples": 64 if quick else SAMPLES}
    rounding = {"data": train, "samples": 256, "steps": 100}
    if quick:
        rounding |= {"samples": 64, "steps": 3}
    made: dict[int, Network] = {}

    def static(bits: int) -> Network:
        if bits not in made:
            made[bits] = quantize.static(**few, bits=bits)(network, seed=0)
        return made[bits]

    def ways(bits: int, measured: int, max_drop: float) -> Ways:
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

    if part == FOUR_BITS:
        return ways(4, 300, 5.0)
    eight = ways(8, 500, 0.3)
    if part == "ResNet-56":  # it takes minutes, and rounding is not what costs accuracy at 8 bits
        eight = {way: make for way, make in eight.items() if "adaround" not in way}
    return (
        eight
        | _plain(subject, few["samples"])
        | {
            "static, entropy": lambda: quantize.static(**few, observer="entropy")(network, seed=0),
            "dynamic": lambda: quantize.dynamic()(network, seed=0),
            "weight_only, 4 bits": lambda: quantize.weight_only(bits=4, observer="mse")(network, seed=0),
        }
    )


def _compared(name: str, subject: Subject, ways: Ways, *, quick: bool) -> list[dict[str, Any]]:
    """A row for each way: accuracy one input at a time, time, how many times as fast as float, bytes."""
    calls: dict[str, Run] = {}
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
    timings = interleaved(
        {way: (lambda call=call: call(subject.example)) for way, call in calls.items()},
        rounds=3 if quick else 5,
        seconds=0.05 if quick else 0.2,
    )
    rows: list[dict[str, Any]] = []
    for way in ways:
        row: dict[str, Any] = {"network": name, "way": way}
        if way in calls:
            ratio, low, high = speedup(timings["float"], timings[way])
            row |= {
                **subject.judge(calls[way]),
                "p50 ms": timings[way].p50,
                "p99 ms": timings[way].p99,
                "times as fast": ratio,
                "low": low,
                "high": high,
                "kB": sizes[way] / 1e3,
                "made in s": seconds[way],
            }
        rows.append(row | {"note": notes[way]} if notes.get(way) else row)
    return rows


def _accuracy(run: Run, test: Samples, network: Network) -> float:
    right = 0
    for start in range(0, len(test), 500):
        inputs = prepare(test.inputs[start : start + 500], network.signature.preprocessing).numpy()
        answers = [int(run(inputs[i : i + 1]).argmax()) for i in range(len(inputs))]
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


def _by_onnxruntime_dynamic(network: Network) -> bytes:
    """ONNX Runtime's own: linear layers' weights per channel, their inputs at every call."""
    import onnxruntime.quantization as peer

    with tempfile.TemporaryDirectory() as folder:
        given, made = (Path(folder) / f"{part}.onnx" for part in ("float", "int8"))
        given.write_bytes(to_onnx(network))
        peer.quantize_dynamic(
            str(given),
            str(made),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=needs_reduced_range(),
            weight_type=peer.QuantType.QInt8,
        )
        return made.read_bytes()


def _runtimes(subject: Subject, samples: int, quick: bool) -> Ways:
    """The float and the int8 network in each runtime, the fastest of them by its own measurement, and the peers."""
    network, train = subject.network, subject.data
    made: list[Network] = []

    def static() -> Network:
        if not made:
            made.append(quantize.static(data=train, samples=samples)(network, seed=0))
        return made[0]

    def in_runtime(name: str, make: Callable[[], Network]) -> Callable[[], Made]:
        return lambda: _lowered(name, make())

    others = [name for name in registry.names() if name != "onnxruntime"]
    ways: Ways = {"float": lambda: network, "static": static}
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
    run = registry.run_network(name, network, folder)
    return Opened(run, sum(path.stat().st_size for path in folder.iterdir()))


def _best(network: Network, train: Any, quick: bool) -> Opened:
    # networks with classes must agree on those; what an untrained one gives differs by nothing but chance
    package = export.best(data=train, samples=64 if quick else 200, relative_difference=1.0)(network)
    manifest = package.manifest()
    reasons = [f"{name}: {found['left_out']}" for name, found in manifest["candidates"].items() if "left_out" in found]
    size = manifest["candidates"][manifest["chosen"]]["bytes"]
    return Opened(registry.run_package(package), size, "; ".join([f"chose {manifest['chosen']}", *reasons]))


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
    return Opened(registry.find("openvino").load(files), sum(path.stat().st_size for path in files.values()))


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
    return Opened(registry.find("executorch").load({path.name: path}), len(content))


if __name__ == "__main__":
    main("--quick" in sys.argv)
