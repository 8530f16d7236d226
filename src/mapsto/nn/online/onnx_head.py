"""A learner's head as ONNX: by itself over prepared rows, or behind an encoder's model, in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.online.head import Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IR", "OPSET", "head_model", "with_head"]

OPSET = 20
IR = 10
"""Of the file's format: what goes with the opset."""


def head_model(head: Head, places: Sequence[int], kept: NDArray[np.bool_], *, directed: bool) -> bytes:
    """The head as a model from ``input`` (N, D) to ``output`` (N, classes), the scores before their softmax.

    Parameters
    ----------
    head
        Over rows, whose input 0 is the bias.
    places
        Of each of the D numbers its input in a row.
    kept
        (D,), whether a number counts: those of a column that has been constant do not.
    directed
        Whether the D numbers are a vector that counts by its direction.
    """
    from onnx import TensorProto, helper

    count = len(places)
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", count])]
    nodes, constants, output = _nodes(head, places, kept, source="input", directed=directed)
    graph = helper.make_graph(nodes, "network", given, [output], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    model.producer_name = "mapsto"
    return model.SerializeToString(deterministic=True)


def with_head(encoder: bytes, head: Head, places: Sequence[int]) -> bytes:
    """An encoder's model, whose one output is the embedding, with the head behind it."""
    import onnx

    model = onnx.load_from_string(encoder)
    graph = model.graph
    source = graph.output[0].name
    nodes, constants, output = _nodes(head, places, np.ones(len(places), np.bool_), source=source, directed=True)
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    del graph.output[:]
    graph.output.append(output)
    return model.SerializeToString(deterministic=True)


def _nodes(
    head: Head, places: Sequence[int], kept: NDArray[np.bool_], *, source: str, directed: bool
) -> tuple[list[Any], list[Any], Any]:
    """The nodes from `source` (N, D) to the output, their constants, and the output."""
    from onnx import TensorProto, helper, numpy_helper

    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: Any, kind: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind), f"head_{name}"))
        return f"head_{name}"

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=f"node_{name}", **attributes))
        return name

    if directed:
        length = node("ReduceL2", [source, constant("axes", [1], np.int64)], "head_length", keepdims=1)
        length = node("Max", [length, constant("least", 1e-30)], "head_divisor")
        direction = node("Div", [source, length], "head_direction")
        source = node("Mul", [direction, constant("size", len(places) ** 0.5)], "head_input")
    last, bias = head.last, head.bias
    if head.first is not None:
        weight, offset = head.first[:, [*places]] * kept, head.first[:, 0]
        source = node("Gemm", [source, constant("first", weight), constant("first_bias", offset)], "head_sum", transB=1)
        source = node("Relu", [source], "head_hidden")
    else:
        bias, last = bias + last[:, 0], last[:, [*places]] * kept
    last, bias = last - last.mean(0), bias - bias.mean()  # the softmax is the same, and float32 holds it better
    node("Gemm", [source, constant("last", last), constant("last_bias", bias)], "output", transB=1)
    return nodes, constants, helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", len(bias)])
