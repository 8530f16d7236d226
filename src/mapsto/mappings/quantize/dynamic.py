"""Quantize to int8 without any data: weights once, each layer's input anew at every call, so that no range can be wrong.

``y = (q_x − z) q_wᵀ · s_x s_w + b`` with ``s_w`` for each output channel and ``s_x``, ``z`` read off the input itself, the whole batch
alike; rows of embeddings are stored as int8, each with a step of its own. Between layers everything stays float: that suits linear
layers on inputs of changing range (text); a convolution gains little, since its large input is gone through twice more, and ONNX
Runtime's ConvInteger is slower than its QLinearConv.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018; ONNX,
"DynamicQuantizeLinear", opset 11, 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Dynamic"]

_LEAST_WIDTH = 8
"""Numbers of an embedding's row from which on codes and a step of its own take fewer bytes than floats."""


class Dynamic(Mapping[Network, Network]):
    """Attach quantizers to weights, and let layers quantize their inputs.

    Raises `DomainError` for a network that is quantized already, has weights that are not finite, or has no such layer.

    >>> import torch
    >>> from mapsto.mappings.networks.mlp import Mlp
    >>> network = Mlp(inputs=20, classes=3)()
    >>> small = Dynamic()(network)
    >>> x = torch.randn(8, 20)
    >>> for scale in (1, 1000):  # no range to outgrow
    ...     before, after = network.module()(scale * x), small.module()(scale * x)
    ...     print(bool(0 < (before - after).abs().max() < 0.1 * before.std()))
    True
    True
    """

    version: ClassVar[int] = 4

    layers: Literal["linear", "all"] = "all"
    """Linear layers alone, or convolutions too."""
    bits: int = Field(default=8, ge=2, le=8)
    """Bits of a weight; inputs have 8. Fewer do not run faster in ONNX Runtime."""
    observer: Literal["minmax", "mse"] = "minmax"
    """A weight's range: its extremes, or the clipping of least squared error."""
    reduce_range: Literal["auto"] | bool = "auto"
    """Weights of 7 bits at most, so that sums of two products fit 16 bits on CPUs without VNNI; "auto" looks at this CPU once and
    records the outcome in the quantizers."""
    first: Literal["auto", "float", "int"] = "auto"
    """The first convolution; "auto" leaves it in float where its input has fewer than 3 channels."""
    tables: bool = True
    """Whether the rows of embeddings are stored as int8: the words of a small encoder of texts are half of its file."""
    skip: tuple[str, ...] = ()
    """Paths of modules that stay in float with all below them."""

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.edits.dynamic_quantizers import DynamicQuantizers
        from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
        from mapsto.nn.network.call_sites import trace
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.quantize.float_layers import LINEAR_ALONE, is_convolution, left_in_float, require_quantized, tell
        from mapsto.nn.quantize.placement import dynamic_layers, thin_first_layer
        from mapsto.nn.quantize.post_training import chosen_reasons, needs_reduced_range, require_float, require_paths
        from mapsto.nn.quantize.quantizer_params import weight_quantizer

        module = require_float(value, where=self.name)
        require_paths(module, self.skip, where=self.name)
        example = example_inputs(value.signature, 2)[0]
        graph = trace(module, example)
        pairs = foldable_pairs(module, graph)
        fold = [FoldBatchNorm(pairs=pairs)] if pairs else []
        for edit in fold:
            module = edit.apply(module)
        thin = thin_first_layer(module, graph, always=self.first == "float") if self.first != "int" else ()
        names = dynamic_layers(graph, skip=(*self.skip, *thin), convolutions=self.layers == "all")
        reasons = chosen_reasons(self.skip, thin, asked=self.first == "float")
        floats = left_in_float(module, graph, names, given=reasons)
        if self.layers == "linear":
            floats = {path: LINEAR_ALONE if is_convolution(module, path) else why for path, why in floats.items()}
        tables = _tables(module, self.skip) if self.tables else ()
        require_quantized(len(names) + len(tables), floats, where=self.name)
        tell(floats, ctx, count=len(names), asked=(*reasons.values(), LINEAR_ALONE))
        reduce_range = needs_reduced_range() if self.reduce_range == "auto" else self.reduce_range
        weights = tuple(
            weight_quantizer(
                name,
                module.get_parameter(name),
                axis=0,
                bits=self.bits,
                reduce_range=reduce_range,
                observer=self.observer,
                floor=0.0,
            )
            for name in names
        )
        attach = DynamicQuantizers(weights=weights, tables=tables)
        return value.with_module(attach.apply(module), *fold, attach)


def _tables(module: nn.Module, skip: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the weights of embeddings that are no other layer's too."""
    from torch import nn

    names = {id(tensor): 0 for tensor in module.parameters()}
    for _, tensor in module.named_parameters(remove_duplicate=False):
        names[id(tensor)] += 1
    return tuple(
        f"{path}.weight".lstrip(".")
        for path, part in module.named_modules()
        if isinstance(part, nn.Embedding)
        and names[id(part.weight)] == 1
        and part.embedding_dim >= _LEAST_WIDTH
        and not any(path == above or path.startswith(f"{above}.") for above in skip)
    )
