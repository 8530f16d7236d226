"""From a network to ONNX bytes: the only place that knows onnx.

Quantizers become QuantizeLinear/DequantizeLinear pairs placed so that ONNX Runtime fuses every operation into an integer one:
weights are stored as int8, biases as int32 in units of (input step × weight step), and a mean over a whole map as
GlobalAveragePool. The bytes hold no paths, times or traces: the same network gives the same bytes anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import warnings
import weakref
from collections.abc import Generator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Network, Signature, TensorSpec
from mapsto.nn.edits.quantizers import KEPT, bake_weights
from mapsto.nn.export.attention import Attentions, fuse, masks_padding
from mapsto.nn.network.examples import example_inputs
from mapsto_runtime.runtimes._converting import operator_in

if TYPE_CHECKING:
    from mapsto.nn.meta.adaptation_methods import LinearMethod

__all__ = ["OPSET", "fake_kernels", "to_adapting_onnx", "to_onnx"]

OPSET = 20


def to_onnx(network: Network, *, fused: bool = False) -> bytes:
    """The network as an ONNX model with its signature's names and symbolic dimensions; made once for each network.

    `fused`: with operations that ONNX Runtime alone has, where it is an encoder of texts (`mapsto.nn.export.attention`).

    Raises `DomainError` where torch cannot export it; the message says which operation.
    """
    key = id(network), fused
    if key not in _known:
        _known[key] = _model_of(network, fused=fused)
        weakref.finalize(network, _known.pop, key, None)
    return _known[key]


_known: dict[tuple[int, bool], bytes] = {}
"""Models of the networks that are there."""


def _model_of(network: Network, *, fused: bool) -> bytes:
    module, signature = network.module(), network.signature
    read = signature.preprocessing
    texts = fused and read.kind == "text" and len(signature.inputs[0].shape) == 2
    fused = texts and masks_padding(module, example_inputs(signature, 3)[0], read.padding)
    bake_weights(module)
    with Attentions() if fused else contextlib.nullcontext():
        model = _exported(module, signature)
    _Lowering(model).run()
    if fused:
        fuse(model, read.padding)
    domains = [entry for entry in model.opset_import if entry.domain != KEPT.partition("::")[0]]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    _strip(model)
    return model.SerializeToString(deterministic=True)


def to_adapting_onnx(network: Network) -> bytes | None:
    """The map from a learner's support set to its head as an ONNX model, for any number of examples S and of ways.

    Inputs ``features`` (S, D), the support set's embeddings as the learner's own model gives them, and ``members`` (S, ways),
    1 where an example is of a class, else 0; outputs ``weight`` (ways, D) and ``bias`` (ways,). None where what the learner makes
    of examples is no linear layer.
    """
    from mapsto.nn.meta.adaptation_methods import linear_method

    learner = network.adaptation
    if learner is None:
        return None
    linear = linear_method(learner.method)
    if linear is None:
        return None
    size = int(network.signature.outputs[0].shape[-1])
    inputs = (
        TensorSpec(name="features", dtype="float32", shape=("S", size)),
        TensorSpec(name="members", dtype="float32", shape=("S", "ways")),
    )
    outputs = (
        TensorSpec(name="weight", dtype="float32", shape=("ways", size)),
        TensorSpec(name="bias", dtype="float32", shape=("ways",)),
    )
    examples = (torch.randn(6, size, generator=torch.Generator().manual_seed(0)), torch.eye(3).repeat(2, 1))
    model = _exported(_Adapting(linear, learner), Signature(inputs=inputs, outputs=outputs), examples)
    _strip(model)
    return model.SerializeToString(deterministic=True)


class _Adapting(nn.Module):
    """Features and members of a support set → the head's weight and bias."""

    def __init__(self, linear: LinearMethod, learner: Adaptation) -> None:
        super().__init__()
        self._linear, self._learner = linear, learner
        for number, tensor in enumerate(learner.tensors.values()):
            self.register_buffer(f"tensor_{number}", tensor)

    def forward(self, features: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        tensors = {name: self.get_buffer(f"tensor_{number}") for number, name in enumerate(self._learner.tensors)}
        learner = dataclasses.replace(self._learner, tensors=tensors)
        return self._linear.head(features, members.argmax(1), members.shape[1], learner)


def _exported(module: nn.Module, signature: Signature, examples: tuple[Tensor, ...] | None = None) -> Any:
    names = {size for spec in signature.inputs for size in spec.shape if isinstance(size, str)}
    dimensions = {name: torch.export.Dim(name) for name in sorted(names)}
    shapes = [
        {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in signature.inputs
    ]
    with _quiet(), fake_kernels(), _parsed_once(), torch.no_grad():  # without gradients tracing takes a fifth less
        try:
            program = torch.onnx.export(
                module.eval(),
                examples or example_inputs(signature, 2),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_shapes=tuple(shapes),
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            text = str(error.__cause__ or error).strip()
            raise DomainError(
                f"torch cannot export this network to ONNX{operator_in(text)}: {text.splitlines()[0]}",
                where="export.onnx",
                hint="replace the operation, or one whose result depends on values",
            ) from error
    if program is None:
        raise DomainError(
            "torch gave no ONNX program", where="export.onnx", hint="check torch.onnx.export on the module"
        )
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the exporter's notices about packages that it does not need and constants that it does not fold."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _parsed_once() -> Generator[None]:
    """The exporter parses the sources of its 500 translations for every model, a third of its time; here once in a process."""
    from onnxscript.values import TracedOnnxFunction

    kept = vars(TracedOnnxFunction).get("function_ir")
    if not isinstance(kept, property):
        yield
        return
    try:
        TracedOnnxFunction.function_ir = property(lambda function: _parsed(function, kept))  # type: ignore[method-assign]
        yield
    finally:
        TracedOnnxFunction.function_ir = kept  # type: ignore[method-assign]


@cache
def _parsed(function: Any, parse: property) -> Any:
    return parse.__get__(function)


@contextlib.contextmanager
def fake_kernels() -> Generator[None]:
    """Shapes of fake quantization's results, which torch 2.13 does not know for a symbolic batch."""

    def shaped(value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(value), torch.empty_like(value, dtype=torch.bool)

    with torch.library._scoped_library("aten", "IMPL") as library:
        for kind in ("tensor", "channel"):
            name = f"fake_quantize_per_{kind}_affine_cachemask"
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
                library.impl(name, shaped, "Meta")
        yield


# ---------------------------------------------------------------------------------------------------------------- lowering


class _Lowering:
    """Rewrites an exported model in place, so that a runtime's integer kernels fit it."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.graph = model.graph
        self.constants: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item) for item in self.graph.initializer
        }
        self.constants |= {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in self.graph.node
            if node.op_type == "Constant" and node.attribute[0].name == "value"
        }
        self.ranks = {item.name: len(item.type.tensor_type.shape.dim) for item in self.graph.value_info}
        self.nodes: list[Any] = []
        self.made: dict[str, Any] = {}
        """Tensor name → the node that makes it."""
        self.flat: dict[str, str] = {}
        """Name of a flattened tensor → the map that it is to be flattened from, once that is quantized."""

    def run(self) -> None:
        for node in self.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] in self.constants:
                self._store_codes(node)
            elif node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] in self.flat:
                self._flatten_later(node)
            elif node.op_type in ("Conv", "Gemm"):
                if node.op_type == "Conv":
                    self._take_padding(node)
                if len(node.input) == 3:
                    self._store_bias(node)
                self._add(node)
            elif node.domain == KEPT.partition("::")[0]:
                node.domain, node.op_type = "", "Identity"
                self._add(node)
            elif node.op_type == "ReduceMean" and self._is_global(node):
                self._pool(node)
            else:
                self._add(node)
        del self.graph.node[:]
        self._drop_unused()

    def _add(self, node: Any) -> None:
        self.nodes.append(node)
        self.made.update(dict.fromkeys(node.output, node))

    def _constant(self, name: str, value: NDArray[Any]) -> None:
        from onnx import numpy_helper

        self.constants[name] = value
        self.graph.initializer.append(numpy_helper.from_array(value, name))

    def _store_codes(self, node: Any) -> None:
        value, scale, zero = (self.constants[name] for name in node.input)
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        if scale.ndim == 1:
            shape = [1] * value.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        limits = np.iinfo(zero.dtype)
        codes = np.rint(value / scale) + zero.astype(np.int32)
        self._constant(node.output[0], np.clip(codes, limits.min, limits.max).astype(zero.dtype))

    def _store_bias(self, node: Any) -> None:
        """Store a bias in units of the accumulator's step where the input and the weight are both codes."""
        from onnx import helper

        steps = [self._step(name) for name in node.input[:2]]
        bias = self.constants.get(node.input[2])
        if bias is None or steps[0] is None or steps[1] is None or steps[0].size != 1:
            return
        step = (steps[0].astype(np.float32) * steps[1].astype(np.float32)).reshape(-1)
        codes = np.rint(bias.astype(np.float64) / step)
        if np.abs(codes).max() >= 2**31:
            return
        name = f"{node.output[0]}_bias"
        self._constant(f"{name}_codes", codes.astype(np.int32))
        self._constant(f"{name}_scale", step if step.size > 1 else step.reshape(()))
        made = helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale"], [name], name=f"node_{name}")
        if step.size > 1:
            made.attribute.append(helper.make_attribute("axis", 0))
        self._add(made)
        node.input[2] = name

    def _take_padding(self, node: Any) -> None:
        """Let a convolution pad its own input: zeros that were put around codes, then quantized by the same step, are codes of zero."""
        from onnx import helper

        maker = self.made.get(node.input[0])
        steps = None
        if maker is not None and maker.op_type == "DequantizeLinear":
            steps, quantizing = maker, self.made.get(maker.input[0])
            maker = self.made.get(quantizing.input[0]) if quantizing is not None else None
        if maker is None or maker.op_type != "Pad":
            return
        source = self.made.get(maker.input[0])
        if steps is not None and (
            source is None or source.op_type != "DequantizeLinear" or not self._alike(source, steps)
        ):
            return
        pads = self.constants.get(maker.input[1])
        value = self.constants.get(maker.input[2]) if len(maker.input) > 2 and maker.input[2] else np.zeros(1)
        kinds = {item.name: helper.get_attribute_value(item) for item in (*maker.attribute, *node.attribute)}
        if (
            pads is None
            or value is None
            or (len(maker.input) > 3 and maker.input[3])
            or value.any()
            or kinds.get("mode", b"constant") != b"constant"
            or kinds.get("auto_pad", b"NOTSET") != b"NOTSET"
            or pads.min() < 0
        ):
            return
        before, after = pads.reshape(2, -1)
        if before[:2].any() or after[:2].any():
            return
        own = np.array(kinds.get("pads", [0] * (len(pads) - 4)))
        kept = [item for item in node.attribute if item.name != "pads"]
        del node.attribute[:]
        node.attribute.extend(
            [*kept, helper.make_attribute("pads", (own + np.concatenate([before[2:], after[2:]])).tolist())]
        )
        node.input[0] = maker.input[0]

    def _alike(self, first: Any, second: Any) -> bool:
        """Whether two nodes have the same scale and zero point."""
        pairs = [
            (self.constants.get(a), self.constants.get(b))
            for a, b in zip(first.input[1:], second.input[1:], strict=True)
        ]
        return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)

    def _step(self, name: str) -> NDArray[Any] | None:
        """The size of one code of a dequantized tensor, seen through nodes that only rearrange."""
        node = self.made.get(name)
        while node is not None and node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"):
            node = self.made.get(node.input[0])
        return self.constants.get(node.input[1]) if node is not None and node.op_type == "DequantizeLinear" else None

    def _is_global(self, node: Any) -> bool:
        axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        rank = self.ranks.get(node.input[0])
        return axes is not None and rank == 4 and sorted(int(axis) % 4 for axis in axes.reshape(-1)) == [2, 3]

    def _pool(self, node: Any) -> None:
        from onnx import helper

        keeps = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
        output = node.output[0]
        pooled = output if keeps else f"{output}_map"
        self._add(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"node_{pooled}_pool"))
        if keeps:
            return
        takers = [taker.op_type for taker in self.graph.node if output in taker.input]
        if takers == ["QuantizeLinear"] and output not in [item.name for item in self.graph.output]:
            self.flat[output] = pooled
        else:
            self._flatten(pooled, output)

    def _flatten(self, name: str, output: str) -> None:
        from onnx import helper

        self._constant(f"{output}_shape", np.array([0, -1]))
        self._add(helper.make_node("Reshape", [name, f"{output}_shape"], [output], name=f"node_{output}_flat"))

    def _flatten_later(self, node: Any) -> None:
        """Flatten behind the quantizer: kernels for codes want it right behind the pooling."""
        output = node.output[0]
        node.input[0] = self.flat.pop(node.input[0])
        node.output[0] = f"{output}_map"
        self._add(node)
        if node.op_type == "QuantizeLinear":
            self.flat[output] = node.output[0]
        else:
            self._flatten(node.output[0], output)

    def _drop_unused(self) -> None:
        used = {item.name for item in self.graph.output}
        nodes: list[Any] = []
        for node in reversed(self.nodes):
            if used.intersection(node.output):
                nodes.append(node)
                used.update(node.input)
        self.graph.node.extend(reversed(nodes))
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _strip(model: Any) -> None:
    """Drop what depends on where and how the model was made: stack traces, local paths, versions."""
    model.producer_name, model.producer_version, model.doc_string = "mapsto", "", ""
    graph = model.graph
    graph.name, graph.doc_string = "network", ""
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        if hasattr(item, "doc_string"):
            item.doc_string = ""
    del graph.value_info[:]
    del model.functions[:]
