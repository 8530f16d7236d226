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
_NAMED_PADDING = {
    _ATEN.conv1d.padding: _ATEN.conv1d.default,
    _ATEN.conv2d.padding: _ATEN.conv2d.default,
    _ATEN.conv3d.padding: _ATEN.conv3d.default,
}
"""Convolutions whose padding is a word → those whose padding is numbers."""
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
    _pad_explicitly(graph.graph)
    if codes:  # LiteRT's converter puts what rescales there itself, and takes no pair behind a pair
        _align_concatenations(graph.graph)
        _require_kernels(graph.graph, where)
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


def _pad_explicitly(graph: fx.Graph) -> None:
    """Numbers instead of ``padding="same"`` and ``"valid"``, which not every compiler's pattern of an int8 convolution knows.

    Where one side gets a zero more than the other, they are put around the codes: zero is a code of every quantizer.
    """
    for node in [node for node in graph.nodes if node.target in _NAMED_PADDING]:
        given = dict(
            zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), node.args, strict=False)
        )
        given |= node.kwargs
        value, weight = given["input"], given["weight"]
        axes = weight.meta["val"].shape[2:]
        dilation = _of_each(given.get("dilation", 1), len(axes))
        whole = [
            by * (size - 1) if given.get("padding") == "same" else 0 for size, by in zip(axes, dilation, strict=True)
        ]
        least = [size // 2 for size in whole]
        with graph.inserting_before(node):
            if any(size % 2 for size in whole):
                pads = [side for size in reversed(whole) for side in (size // 2, size - size // 2)]
                padded = graph.call_function(_ATEN.constant_pad_nd.default, (value, pads, 0.0))
                quantized = value.target == _TENSOR
                value = graph.call_function(_TENSOR, (padded, *value.args[1:])) if quantized else padded
                least = [0] * len(axes)
            stride = _of_each(given.get("stride", 1), len(axes))
            rest = (given.get("bias"), stride, least, dilation, given.get("groups", 1))
            made = graph.call_function(_NAMED_PADDING[node.target], (value, weight, *rest))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


def _of_each(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _require_kernels(graph: fx.Graph, where: str) -> None:
    """Raises `DomainError` for an int8 convolution over one axis: XNNPACK takes it in, and fails only when it runs."""
    for node in graph.nodes:
        if node.target == _ATEN.conv1d.default and node.args[1].target == _CHANNEL and _is_integer(node):
            raise DomainError(
                f"ExecuTorch has no int8 kernel for a convolution over one axis ('{node.name}', conv1d)",
                where=where,
                hint="export the network before it is quantized, or use export.onnx or export.litert",
            )


def _align_concatenations(graph: fx.Graph) -> None:
    """Quantize what is concatenated by the result's own scale, which int8 kernels want of it and which changes no value."""
    for node in [node for node in graph.nodes if node.target == _ATEN.cat.default]:
        users = list(node.users)
        scales = {user.args[1:] for user in users if user.target == _TENSOR}
        if len(scales) != 1 or any(user.target != _TENSOR for user in users):
            continue
        (scale,) = scales
        with graph.inserting_before(node):
            parts = [
                part
                if part.target == _TENSOR and part.args[1:] == scale
                else graph.call_function(_TENSOR, (part, *scale))
                for part in node.args[0]
            ]
        node.args = (parts, *node.args[1:])


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
