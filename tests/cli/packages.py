"""Packages whose answers can be told beforehand, made without a training library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from mapsto_runtime.signature import Column, Preprocessing, Signature, TensorSpec

__all__ = [
    "COLOURS",
    "color_package",
    "embedding_package",
    "identity_package",
    "linear_package",
    "table_package",
    "word_package",
    "write_package",
]

COLOURS = ("red", "green", "blue")


def write_package(
    folder: Path, nodes: list[Any], signature: Signature, initializers: tuple[Any, ...] = (), tokenizer: str = ""
) -> Path:
    """A package of an ONNX graph from ``input`` to ``output``."""
    inputs, outputs = (
        [
            helper.make_tensor_value_info(
                spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), list(spec.shape)
            )
            for spec in specs
        ]
        for specs in (signature.inputs, signature.outputs)
    )
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    folder.mkdir(parents=True)
    contents = {"model.onnx": content, **({"tokenizer.json": tokenizer.encode()} if tokenizer else {})}
    for name, held in contents.items():
        (folder / name).write_bytes(held)
    manifest = {
        "format": 1,
        "model": "model.onnx",
        "signature": signature.plain(),
        "parameters": 0,
        "files": {
            name: {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held)} for name, held in contents.items()
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _specs(shape: tuple[int, ...], outputs: int) -> dict[str, Any]:
    return {
        "inputs": (TensorSpec(name="input", dtype="float32", shape=("N", *shape)),),
        "outputs": (TensorSpec(name="output", dtype="float32", shape=("N", outputs)),),
    }


def identity_package(folder: Path, classes: tuple[str, ...], **more: Any) -> Path:
    """Its scores are the numbers that it is given."""
    signature = Signature(
        **_specs((len(classes),), len(classes)), preprocessing=Preprocessing(kind="none"), classes=classes, **more
    )
    return write_package(folder, [helper.make_node("Identity", ["input"], ["output"])], signature)


def embedding_package(folder: Path, width: int) -> Path:
    """Its embedding is the numbers that it is given."""
    signature = Signature(**_specs((width,), width), preprocessing=Preprocessing(kind="none"))
    return write_package(folder, [helper.make_node("Identity", ["input"], ["output"])], signature)


def color_package(folder: Path, size: int = 8) -> Path:
    """Images of one colour, told by their largest channel; its scores are ten times the channels' means, 0 to 10."""
    signature = Signature(
        **_specs((3, size, size), 3), preprocessing=Preprocessing(channels=3, size=(size, size)), classes=COLOURS
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Mul", ["flat", "ten"], ["output"]),
    ]
    ten = helper.make_tensor("ten", onnx.TensorProto.FLOAT, [1], [10.0])
    return write_package(folder, nodes, signature, (ten,))


def table_package(
    folder: Path, *, values: bool = False, fill: bool = True, left_out: tuple[str, ...] = ("label",)
) -> Path:
    """Rows of columns a and b: its classes are the larger of them, or its value (`price`) is a; it does not predict from `left_out`."""
    columns = tuple(Column(name=name, fill=(0.0,) if fill else ()) for name in "ab")
    before = Preprocessing(kind="none", columns=columns, header=("a", "b", *left_out))
    if not values:
        signature = Signature(**_specs((2,), 2), preprocessing=before, classes=("a", "b"))
        return write_package(folder, [helper.make_node("Identity", ["input"], ["output"])], signature)
    signature = Signature(**_specs((2,), 1), preprocessing=before, classes=("price",), answers="values")
    weight = helper.make_tensor("weight", onnx.TensorProto.FLOAT, [2, 1], np.array([1.0, 0.0], np.float32))
    return write_package(folder, [helper.make_node("MatMul", ["input", "weight"], ["output"])], signature, (weight,))


def linear_package(folder: Path, weight: Any, classes: tuple[str, ...]) -> Path:
    """Its features are the numbers that it is given, and its scores their products with `weight` (classes, numbers)."""
    matrix = np.asarray(weight, np.float32)
    constants = (
        onnx.numpy_helper.from_array(matrix, "weight"),
        onnx.numpy_helper.from_array(np.zeros(len(matrix), np.float32), "bias"),
    )
    nodes = [
        helper.make_node("Identity", ["input"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["output"], transB=1),
    ]
    signature = Signature(
        **_specs((matrix.shape[1],), len(matrix)), preprocessing=Preprocessing(kind="none"), classes=classes
    )
    return write_package(folder, nodes, signature, constants)


def word_package(folder: Path, classes: tuple[str, ...], words: dict[str, tuple[float, ...]]) -> Path:
    """It reads texts, and its score of a class is the sum of what each word adds to it; words that are not named add nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *words))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = made.to_str()
    weight = np.zeros((len(vocabulary), len(classes)), np.float32)
    weight[2:] = list(words.values())
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="int64", shape=("N", "L"), ids=(len(vocabulary),)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", len(classes))),),
        preprocessing=Preprocessing(
            kind="text", tokenizer=hashlib.sha256(tokenizer.encode()).hexdigest(), length=12, header=("text",)
        ),
        classes=classes,
    )
    nodes = [
        helper.make_node("Gather", ["weight", "input"], ["words"]),
        helper.make_node("ReduceSum", ["words", "axes"], ["output"], keepdims=0),
    ]
    constants = (
        onnx.numpy_helper.from_array(weight, "weight"),
        onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"),
    )
    return write_package(folder, nodes, signature, constants, tokenizer)
