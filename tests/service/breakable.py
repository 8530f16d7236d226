"""A package that is slow or fails on certain inputs, for tests of what is seen of that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mapsto_runtime.signature import Preprocessing, Signature, TensorSpec
from tests.cli.packages import write_package

__all__ = ["breakable_package"]

_WIDTH, _FIRST = 96, 60


def breakable_package(folder: Path, classes: tuple[str, str]) -> Path:
    """Rows of five numbers: the first three are the features, and the first one decides between the classes; a fourth but 0 lets the
    model fail, and the fifth is how many rounds of work it does for nothing.
    """
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(_WIDTH, _WIDTH)))[0].astype(np.float32)
    constants = {
        "weight": np.array([[-1, 0, 0], [1, 0, 0]], np.float32),
        "bias": np.zeros(2, np.float32),
        "start": np.array([0], np.int64),
        "three": np.array([3], np.int64),
        "four": np.array([4], np.int64),
        "five": np.array([5], np.int64),
        "axis": np.array([1], np.int64),
        "table": np.zeros(1, np.float32),
        "first": np.array(_FIRST, np.int64),
        "matrix": matrix,
        "nothing": np.zeros(1, np.float32),
        "go": np.array(True),
    }
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["after"]),
            helper.make_node("Identity", ["may"], ["goes"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("may", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", onnx.TensorProto.FLOAT, [_WIDTH, _WIDTH]),
        ],
        [
            helper.make_tensor_value_info("goes", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", onnx.TensorProto.FLOAT, [_WIDTH, _WIDTH]),
        ],
    )
    nodes = [
        helper.make_node("Slice", ["input", "start", "three", "axis"], ["own"]),
        helper.make_node("Slice", ["input", "three", "four", "axis"], ["place"]),
        helper.make_node("Slice", ["input", "four", "five", "axis"], ["rounds"]),
        helper.make_node("ReduceMax", ["place"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["zero"]),  # fails beyond the table
        helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["more"], to=onnx.TensorProto.INT64),
        helper.make_node("Add", ["more", "first"], ["count"]),
        helper.make_node("Loop", ["count", "go", "matrix"], ["worked"], body=body),
        helper.make_node("ReduceMax", ["worked"], ["some"], keepdims=0),
        helper.make_node("Mul", ["some", "nothing"], ["none"]),
        helper.make_node("Add", ["own", "none"], ["later"]),
        helper.make_node("Add", ["later", "zero"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["output"], transB=1),
    ]
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 5)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", 2)),),
        preprocessing=Preprocessing(kind="none"),
        classes=classes,
    )
    held = tuple(numpy_helper.from_array(value, name) for name, value in constants.items())
    return write_package(folder, nodes, signature, held)
