"""What flows into the last matrix product of an ONNX model: as its only output, without the head, as a second one, or
as the input of the head alone.

A quantized model stays so: its integer kernels run as before, and what its head is given comes out as float32.
"""

from __future__ import annotations

from typing import Any

from mapsto.errors import DomainError

__all__ = ["head_alone", "with_embedding", "without_head"]

_HEADS = ("Gemm", "MatMul")
_BEHIND = (
    "QuantizeLinear",
    "DequantizeLinear",
    "Add",
    "Identity",
    "Softmax",
    "LogSoftmax",
    "Reshape",
    "Flatten",
    "Squeeze",
)
"""What may stand behind a head."""


def without_head(model: bytes, *, where: str) -> bytes:
    """The model with the embedding (N, D) as its one output. Raises `DomainError` where no linear head ends it."""
    import onnx
    from onnx import helper

    tree = onnx.load_from_string(model)
    graph = tree.graph
    embedding = _embedding(graph, where)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(embedding, onnx.TensorProto.FLOAT, ["N", "D"]))
    used, nodes = {embedding}, list[Any]()
    for node in reversed(graph.node):
        if used.intersection(node.output):
            nodes.append(node)
            used.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return tree.SerializeToString(deterministic=True)


def with_embedding(model: bytes, *, where: str) -> bytes:
    """The model with the embedding (N, D) as a second output. Raises `DomainError` where no linear head ends it."""
    import onnx
    from onnx import helper

    tree = onnx.load_from_string(model)
    embedding = _embedding(tree.graph, where)
    tree.graph.output.append(helper.make_tensor_value_info(embedding, onnx.TensorProto.FLOAT, ["N", "D"]))
    return tree.SerializeToString(deterministic=True)


def head_alone(model: bytes, *, where: str) -> bytes:
    """The model's head as a model of its own: the embedding (N, D) in, what the whole gives out. Raises `DomainError` as above."""
    import onnx
    from onnx import helper

    tree = onnx.load_from_string(model)
    graph = tree.graph
    embedding = _embedding(graph, where)
    used, nodes = {output.name for output in graph.output}, list[Any]()
    for node in reversed(graph.node):
        if used.intersection(node.output) and embedding not in node.output:
            nodes.append(node)
            used.update(name for name in node.input if name != embedding)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(embedding, onnx.TensorProto.FLOAT, ["N", "D"]))
    return tree.SerializeToString(deterministic=True)


def _embedding(graph: Any, where: str) -> str:
    """The name of what the head is given."""
    made: dict[str, Any] = {name: node for node in graph.node for name in node.output}
    constant = {item.name for item in graph.initializer}
    constant |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    name = graph.output[0].name
    while name in made:
        node = made[name]
        if node.op_type in _HEADS:
            return str(node.input[0])
        if node.op_type not in _BEHIND:
            break
        name = next((given for given in node.input if _comes_from_input(given, made, constant)), "")
    raise DomainError(
        "the package has no linear head at its end, before which features could be taken",
        where=where,
        hint="give the network itself, or a package of one that gives embeddings",
    )


def _comes_from_input(name: str, made: dict[str, Any], constant: set[str]) -> bool:
    """Whether a tensor depends on the graph's input: a weight that is stored as codes does not."""
    while name in made and name not in constant:
        node = made[name]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Identity", "Reshape", "Transpose"):
            return True
        name = node.input[0]
    return name not in constant
