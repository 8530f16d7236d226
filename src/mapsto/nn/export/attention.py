"""Attention of an encoder of texts as one operation of ONNX Runtime, and residual sums together with their normalisation.

Exported step by step, attention is thirty operations a layer, and most of its time at 16 tokens is spent between them. Here a call of
``scaled_dot_product_attention`` stays one node, ``softmax(q kᵀ · s + mask) v``, and becomes QAttention where its three projections are of
int8 codes of the same input, MultiHeadAttention else. The mask of padding is given as such, where trial shows that it is no other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["ATTENTION", "Attentions", "fuse", "masks_padding"]

ATTENTION = "mapsto.attention::Attention"
"""The node that stands for a call of attention until `fuse` replaces it."""
_DOMAIN = "com.microsoft"
_FILL = -10000.0
"""What QAttention adds where a text is padded; its own default. e^-10000 is 0 in float32."""


class Attentions(TorchFunctionMode):
    """While an encoder is exported: each call of attention becomes one node, if the mask of all is that of padding."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = _call_of(func, args, kwargs or {})
        if found is None or not torch.compiler.is_exporting():
            return func(*args, **(kwargs or {}))
        query, key, value, _, scale = found
        attributes: dict[str, Any] = {"heads": int(query.shape[1]), "size": int(value.shape[-1]), "scale": scale}
        shape = (*query.shape[:-1], value.shape[-1])
        return torch.onnx.ops.symbolic(
            ATTENTION, (query, key, value), attributes, dtype=query.dtype, shape=shape, version=1
        )


def _call_of(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float] | None:
    """Query, key, value, mask and scale of a call of attention within a batch of sequences; None for any other call."""
    if func is not torch.nn.functional.scaled_dot_product_attention:
        return None
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, value = given["query"], given["key"], given["value"]
    if given.get("dropout_p") or given.get("is_causal") or query.ndim != 4 or key.shape[1] != query.shape[1]:
        return None
    scale = given.get("scale")
    return query, key, value, given.get("attn_mask"), 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def masks_padding(module: nn.Module, ids: Tensor, padding: int) -> bool:
    """Whether every call of attention hides the padding of `ids`, shape (N, L), and nothing else; False without such a call.

    `ids` are to hold padding at some ends.
    """
    watch = _Masks((ids != padding)[:, None, None, :])
    with torch.no_grad(), watch:
        module(ids)
    return bool(watch.alike) and all(watch.alike)


class _Masks(TorchFunctionMode):
    def __init__(self, wanted: Tensor) -> None:
        super().__init__()
        self.wanted = wanted
        self.alike: list[bool] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            found = _call_of(func, args, kwargs or {})
            self.alike.append(found is not None and self._is_wanted(found[3]))
        return func(*args, **(kwargs or {}))

    def _is_wanted(self, mask: Tensor | None) -> bool:
        if mask is None or mask.ndim != 4 or mask.shape[-1] != self.wanted.shape[-1]:  # prompts are attended to as well
            return False
        if mask.dtype is torch.bool:
            return bool((mask == self.wanted).all())
        return bool(((mask == 0) == self.wanted).all() and (mask <= 0).all() and (mask[mask < 0] < _FILL).all())


def fuse(model: Any, padding: int) -> None:
    """Replace `ATTENTION` and sums before a normalisation in an ONNX model, in place; its input is token ids padded with `padding`."""
    _Fusing(model, padding).run()


class _Fusing:
    def __init__(self, model: Any, padding: int) -> None:
        from onnx import numpy_helper

        self.model, self.graph, self.padding = model, model.graph, padding
        self.constants = {item.name: numpy_helper.to_array(item) for item in self.graph.initializer}
        self.made = {name: node for node in self.graph.node for name in node.output}
        self.takers: Counter[str] = Counter(name for node in self.graph.node for name in node.input)
        self.taker = {name: node for node in self.graph.node for name in node.input}
        self.outputs = {item.name for item in self.graph.output}
        self.constant_names = 0

    def run(self) -> None:
        nodes: list[Any] = [*self._mask()]
        for node in self.graph.node:
            if node.domain == ATTENTION.partition("::")[0]:
                nodes += self._attention(node)
            elif node.op_type == "LayerNormalization":
                nodes += self._normalisation(node)
            else:
                nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self._used(self._sorted(nodes)))
        names = {name for node in self.graph.node for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in names]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        others = [
            entry for entry in self.model.opset_import if entry.domain not in (ATTENTION.partition("::")[0], _DOMAIN)
        ]
        del self.model.opset_import[:]
        self.model.opset_import.extend(others)
        self.model.opset_import.add(domain=_DOMAIN, version=1)

    # ------------------------------------------------------------------------------------------------------- attention

    def _mask(self) -> list[Any]:
        """1 for a token and 0 for padding, int32 (N, L)."""
        return [
            _node("Equal", [self.graph.input[0].name, self._stored(np.array(self.padding, np.int64))], "is_padding"),
            _node("Not", ["is_padding"], "is_token"),
            _node("Cast", ["is_token"], "tokens", to=6),
        ]

    def _attention(self, node: Any) -> list[Any]:
        heads, size, scale = (_attribute(node, name) for name in ("heads", "size", "scale"))
        parts = [self._merged(name) for name in node.input]
        after = self._after(node.output[0], heads, size)
        if None in parts or after is None:
            return self._step_by_step(node, scale)
        quantized = self._together([str(part) for part in parts], heads, scale)
        if quantized is not None:
            inputs, attributes = quantized, {"num_heads": heads, "mask_filter_value": _FILL}
            return [_node("QAttention", inputs, after, domain=_DOMAIN, **attributes)]
        inputs = [*(str(part) for part in parts), "", "tokens"]
        attributes = {"num_heads": heads, "scale": scale, "mask_filter_value": _FILL}
        return [_node("MultiHeadAttention", inputs, after, domain=_DOMAIN, **attributes)]

    def _merged(self, name: str) -> str | None:
        """The tensor (N, L, heads · size) that was taken apart into heads (N, heads, L, size)."""
        turned = self.made.get(name)
        split = self.made.get(turned.input[0]) if turned is not None and _is_turn(turned) else None
        return None if split is None or split.op_type != "Reshape" else str(split.input[0])

    def _after(self, name: str, heads: int, size: int) -> str | None:
        """The tensor in which the heads (N, heads, L, size) are put together again, where nothing else is done with them."""
        turned = self._only_taker(name)
        if turned is not None and turned.op_type == "Reshape" and self._keeps_heads(turned, heads, size):
            turned = self._only_taker(turned.output[0])
        joined = self._only_taker(turned.output[0]) if turned is not None and _is_turn(turned) else None
        if joined is None or joined.op_type != "Reshape":
            return None
        output = str(joined.output[0])
        joined.output[0] = f"{output}_unused"
        return output

    def _only_taker(self, name: str) -> Any:
        return self.taker[name] if self.takers[name] == 1 and name not in self.outputs else None

    def _keeps_heads(self, node: Any, heads: int, size: int) -> bool:
        """Whether a Reshape to four sizes leaves (N, heads, L, size) as it is, as its second and its last size tell."""
        sizes = self.made.get(node.input[1])
        if sizes is None or sizes.op_type != "Concat" or len(sizes.input) != 4:
            return False
        second, last = (self.constants.get(sizes.input[place]) for place in (1, 3))
        if second is None or last is None:
            return False
        return second.reshape(-1).tolist() in ([heads], [-1]) and last.reshape(-1).tolist() == [size]

    def _together(self, parts: list[str], heads: int, scale: float) -> list[str] | None:
        """Inputs of QAttention, where the three parts are linear layers of the same codes and of one width."""
        layers = [self._integer_layer(part) for part in parts]
        if any(layer is None for layer in layers):
            return None
        found = [layer for layer in layers if layer is not None]
        source = found[0][0]
        widths = {layer[1].shape[1] for layer in found}
        width = next(iter(widths))
        if any(layer[0] != source for layer in found) or len(widths) > 1 or width % heads:
            return None
        if not math.isclose(scale, 1 / math.sqrt(width // heads), rel_tol=1e-5):
            return None
        codes, step, zero = source
        weight = np.concatenate([layer[1] for layer in found], axis=1)
        steps, bias = (np.concatenate([layer[place] for layer in found]) for place in (2, 3))
        return [codes, self._stored(weight), self._stored(bias), step, self._stored(steps), "tokens", zero]

    def _integer_layer(self, name: str) -> tuple[tuple[str, str, str], NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """Of ``(codes · weight) · (step · steps) + bias``: (codes, step, zero point), weight, steps and bias."""
        added = self.made.get(name)
        if added is None or added.op_type != "Add":
            return None
        scaled, bias = self.made.get(added.input[0]), self.constants.get(added.input[1])
        if scaled is None or scaled.op_type != "Mul" or bias is None or bias.ndim != 1:
            return None
        floats, factor = (self.made.get(each) for each in scaled.input)
        if floats is None or floats.op_type != "Cast" or factor is None or factor.op_type != "Mul":
            return None
        product, steps = self.made.get(floats.input[0]), self.constants.get(factor.input[1])
        if product is None or product.op_type != "MatMulInteger" or steps is None:
            return None
        weight = self.constants.get(product.input[1])
        if weight is None or weight.ndim != 2 or len(product.input) != 3:
            return None
        whole = np.broadcast_to(steps.reshape(-1), (weight.shape[1],))
        return (product.input[0], factor.input[0], product.input[2]), weight, whole, bias

    def _step_by_step(self, node: Any, scale: float) -> list[Any]:
        """Attention by plain operations, where it stands between others than usual."""
        query, key, value = node.input
        own = f"{node.output[0]}_"
        return [
            _node("Transpose", [key], f"{own}keys", perm=[0, 1, 3, 2]),
            _node("MatMul", [query, f"{own}keys"], f"{own}products"),
            _node("Mul", [f"{own}products", self._stored(np.array(scale, np.float32))], f"{own}scores"),
            _node("Unsqueeze", ["is_token", self._stored(np.array([1, 2], np.int64))], f"{own}mask"),
            _node("Where", [f"{own}mask", f"{own}scores", self._stored(np.array(_FILL, np.float32))], f"{own}masked"),
            _node("Softmax", [f"{own}masked"], f"{own}shares", axis=-1),
            _node("MatMul", [f"{own}shares", value], node.output[0]),
        ]

    # --------------------------------------------------------------------------------------------------- normalisation

    def _normalisation(self, node: Any) -> list[Any]:
        """A sum and its normalisation along the last axis as one operation."""
        added = self.made.get(node.input[0])
        axis = next((item.i for item in node.attribute if item.name == "axis"), -1)
        if added is None or added.op_type != "Add" or self.takers[node.input[0]] != 1 or axis != -1:
            return [node]
        if len(node.input) != 3 or any(self._rank(name) != 3 for name in added.input):
            return [node]
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        inputs = [*added.input, *node.input[1:]]
        return [_node("SkipLayerNormalization", inputs, node.output[0], domain=_DOMAIN, epsilon=epsilon)]

    def _rank(self, name: str) -> int:
        """3 for what a layer on (N, L, D) gives; 0 where it is not known, as of a sum that is broadcast."""
        node = self.made.get(name)
        if node is None:
            return 0
        if node.op_type in ("LayerNormalization", "SkipLayerNormalization"):
            return 3
        if node.op_type == "Add" and self.constants.get(node.input[1], np.zeros((1, 1))).ndim == 1:
            return 3
        return 0

    # ------------------------------------------------------------------------------------------------------------ graph

    def _stored(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"fused_{self.constant_names}"
        self.constant_names += 1
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _sorted(self, nodes: list[Any]) -> list[Any]:
        """Each node after those that make its inputs."""
        made = {name: node for node in nodes for name in node.output}
        done: set[int] = set()
        ordered: list[Any] = []
        for last in nodes:
            stack = [(last, False)]
            while stack:
                node, ready = stack.pop()
                if ready:
                    ordered.append(node)
                elif id(node) not in done:
                    done.add(id(node))
                    stack.append((node, True))
                    stack += [(made[name], False) for name in reversed(node.input) if name in made]
        return ordered

    def _used(self, nodes: list[Any]) -> list[Any]:
        used = set(self.outputs)
        kept: list[Any] = []
        for node in reversed(nodes):
            if used.intersection(node.output):
                kept.append(node)
                used.update(node.input)
        return kept[::-1]


def _node(kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], name=f"node_{output}", domain=domain, **attributes)


def _attribute(node: Any, name: str) -> Any:
    from onnx import helper

    return next(helper.get_attribute_value(item) for item in node.attribute if item.name == name)


def _is_turn(node: Any) -> bool:
    """Whether it exchanges heads and places in a sequence."""
    return node.op_type == "Transpose" and list(_attribute(node, "perm")) == [0, 2, 1, 3]
