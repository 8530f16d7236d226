"""From a network to a graph whose quantizers are pairs of quantize and dequantize, as ExecuTorch and LiteRT take them.

The scales are the network's own. Codes are signed 8-bit integers: an unsigned code is its signed one plus 128. A layer becomes an
integer one where its input and its result have quantizers; any other keeps the values of its quantized weight in float, since these
runtimes have no kernel from integers to float. The batch has size one, every other size is fixed, too.
"""

from __future__ import annotations

import importlib
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.edits.quantizers import bake_weights, is_quantized, quantizers_of
from mapsto.nn.export.onnx import fake_kernels
from mapsto.nn.network.examples import example_inputs

__all__ = ["decomposed"]

_ATEN: Any = torch.ops.aten
_TENSOR = _ATEN.fake_quantize_per_tensor_affine.default
_CHANNEL = _ATEN.fake_quantize_per_channel_affine.default
_RECTIFIERS = (_ATEN.relu.default, _ATEN.relu_.default, _ATEN.hardtanh.default, _ATEN.hardtanh_.default)


def decomposed(network: Network, *, codes: bool, where: str) -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    """The graph for one sample, and an example of its inputs.

    `codes`: a weight is stored as integers behind one dequantize; otherwise as floats behind a pair. Raises `DomainError` for a network
    of inputs whose size varies, for one that is quantized in another way than by scales of weights and activations, and where torch
    cannot export it.
    """
    _require_known(network, where)
    module = network.module()
    bake_weights(module)
    inputs = example_inputs(network.signature, 1)
    with fake_kernels():
        try:
            program = torch.export.export(module.eval(), inputs)
        except (RuntimeError, ValueError) as error:
            raise DomainError(
                f"torch cannot export this network: {str(error).strip().splitlines()[0]}",
                where=where,
                hint="replace the operation, or one whose result depends on values",
            ) from error
    graph: Any = program.module(check_guards=False)
    _lower_weights(graph, codes)
    _lower_activations(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, inputs


def _require_known(network: Network, where: str) -> None:
    varying = [
        size
        for spec in network.signature.inputs
        for size in (spec.shape[1:] if spec.shape else ())
        if isinstance(size, str)
    ]
    if varying:
        raise DomainError(
            f"its inputs vary in {', '.join(varying)}, this runtime's files have fixed sizes",
            where=where,
            hint="use export.onnx or export.openvino",
        )
    module = network.module()
    if is_quantized(module) and not quantizers_of(module):
        kinds = ", ".join(type(edit).__name__ for edit in network.edits)
        raise DomainError(
            f"this runtime has no kernels for how it is quantized ({kinds})",
            where=where,
            hint="quantize by quantize.static, or use export.onnx",
        )


def _lower_weights(module: Any, codes: bool) -> None:
    native: Any = _operators()
    graph: fx.Graph = module.graph
    for number, node in enumerate([node for node in graph.nodes if node.target == _CHANNEL]):
        weight, scale, zero = (_constant(module, item) for item in node.args[:3])
        axis, lowest, highest = node.args[3:]
        if not all(_is_integer(layer) for layer in node.users):
            module.register_buffer(f"weight_{number}", _CHANNEL(weight, scale, zero, axis, lowest, highest))
            with graph.inserting_before(node):
                made = graph.get_attr(f"weight_{number}")
        else:
            zero, rest = zero.to(torch.int64), (axis, lowest, highest, torch.int8)
            stored = native.quantize_per_channel(weight, scale, zero, *rest) if codes else weight
            for name, value in (("weight", stored), ("scale", scale), ("zero", zero)):
                module.register_buffer(f"{name}_{number}", value)
            with graph.inserting_before(node):
                given, *steps = (graph.get_attr(f"{name}_{number}") for name in ("weight", "scale", "zero"))
                if not codes:
                    given = graph.call_function(native.quantize_per_channel.default, (given, *steps, *rest))
                made = graph.call_function(native.dequantize_per_channel.default, (given, *steps, *rest))
        node.replace_all_uses_with(made)
        graph.erase_node(node)


def _is_integer(layer: fx.Node) -> bool:
    """Whether a layer's input and its result, rectified or not, have quantizers."""
    given: Any = layer.args[0]
    users = list(layer.users)
    if len(users) == 1 and users[0].target in _RECTIFIERS:
        users = list(users[0].users)
    return given.target == _TENSOR and bool(users) and all(user.target == _TENSOR for user in users)


def _lower_activations(graph: fx.Graph) -> None:
    """A quantize where the quantizer stood, and a dequantize for each user: compilers match pairs of their own."""
    native: Any = _operators()
    for node in [node for node in graph.nodes if node.target == _TENSOR]:
        value, scale, zero, lowest, highest = node.args
        shift = 128 if lowest >= 0 else 0
        rest = (scale, zero - shift, lowest - shift, highest - shift, torch.int8)
        with graph.inserting_before(node):
            stored = graph.call_function(native.quantize_per_tensor.default, (value, *rest))
            for user in list(node.users):
                user.replace_input_with(
                    node, graph.call_function(native.dequantize_per_tensor.default, (stored, *rest))
                )
        graph.erase_node(node)


def _constant(module: Any, node: fx.Node) -> Tensor:
    value: Tensor = reduce(getattr, str(node.target).split("."), module)
    return value.detach().clone()


def _operators() -> Any:
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    return torch.ops.quantized_decomposed
