"""Packages made without training, most of small networks with random weights: what is compared here is what serving them costs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mapsto_runtime.signature import Preprocessing, Signature, TensorSpec

CLASSES = tuple("0123456789")


def student(folder: Path) -> Path:
    """An int8 network of 20 thousand weights and 0.4 million multiply-accumulates for 784 numbers."""
    plan = ((8, 2, False), (16, 2, False), (32, 1, True), (48, 1, False))
    return package(folder, (1, 28, 28), plan, quantized=True)


def conv4(folder: Path, shape: tuple[int, int, int]) -> Path:
    """Four blocks of 64 channels, float32."""
    return package(folder, shape, ((64, 1, True),) * 4)


def minilm(folder: Path) -> Path:
    """The sentence encoder MiniLM in int8, with its trained weights: texts to embeddings."""
    from mapsto import export, networks, quantize
    from mapsto.report.build import save_package

    save_package((networks.minilm() >> quantize.dynamic() >> export.onnx())(), folder)
    return folder


def package(
    folder: Path, shape: tuple[int, int, int], plan: tuple[tuple[int, int, bool], ...], *, quantized: bool = False
) -> Path:
    """Convolutions of 3 × 3 by width, stride and whether a pooling follows; the mean over places, and a linear head."""
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    constants: list[Any] = []
    last, channels = "input", shape[0]
    for number, (width, stride, pooled) in enumerate(plan):
        weight = rng.normal(size=(width, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{number}"))
        constants.append(numpy_helper.from_array(np.zeros(width, np.float32), f"b{number}"))
        inputs = [last, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1] * 4, strides=[stride] * 2))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last, channels = f"r{number}", width
        if pooled:
            nodes.append(helper.make_node("MaxPool", [last], [f"p{number}"], kernel_shape=[2, 2], strides=[2, 2]))
            last = f"p{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "bias"], ["output"], "linear", transB=1),
    ]
    head = rng.normal(size=(len(CLASSES), channels)).astype(np.float32)
    constants += [
        numpy_helper.from_array(head, "head"),
        numpy_helper.from_array(np.zeros(len(CLASSES), np.float32), "bias"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["N", len(CLASSES)])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    onnx.save(model, path)
    if quantized:
        _quantize(path, shape, rng)
    _describe(folder, path, shape)
    return folder


def _quantize(path: Path, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [rng.random((8, *shape), np.float32) for _ in range(4)]

        def get_next(self) -> Any:
            return {"input": self.left.pop()} if self.left else None

    whole = path.with_suffix(".float.onnx")
    path.rename(whole)
    quantize_static(whole, path, Samples(), quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_exclude=["linear"])
    whole.unlink()


def _describe(folder: Path, path: Path, shape: tuple[int, int, int]) -> None:
    size = (shape[1], shape[2])
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", *shape)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", len(CLASSES))),),
        preprocessing=Preprocessing(channels=shape[0], size=size),
        classes=CLASSES,
    )
    content = path.read_bytes()
    manifest = {
        "format": 1,
        "model": "model.onnx",
        "signature": signature.plain(),
        "parameters": 0,
        "files": {"model.onnx": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
