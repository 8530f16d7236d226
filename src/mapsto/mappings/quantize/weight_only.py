"""Quantize the weights alone, to 8 or 4 bits in groups along the inputs: a smaller file, and activations as they were.

``w ≈ (q − z) · s`` with one s and z for each run of `group` inputs of each output. It pays where reading weights takes longer than
multiplying them: linear layers at batch 1, which run as ONNX Runtime's MatMulNBits (of floats at 8 bits as float, which it has no
fast product for). A convolution's weights are small in the file alone: they are unpacked once, when it is loaded.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023 (its round-to-nearest
baseline with groups); Dettmers and Zettlemoyer, "The case for 4-bit precision: k-bit Inference Scaling Laws", 2023.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["WeightOnly"]


class WeightOnly(Mapping[Network, Network]):
    """The network with its weights on 256 or 16 steps a group.

    Raises `DomainError` for a network that is quantized already, has weights that are not finite, or has no such layer.

    >>> import torch
    >>> from mapsto.mappings.networks.mlp import Mlp
    >>> network = Mlp(inputs=256, classes=3)()
    >>> x = torch.randn(8, 256)
    >>> errors = [
    ...     float((WeightOnly(bits=bits, group=group)(network).module()(x) - network.module()(x)).abs().mean().detach())
    ...     for bits, group in ((8, 32), (4, 16), (4, 256))
    ... ]
    >>> errors == sorted(errors)
    True
    """

    version: ClassVar[int] = 2

    bits: Literal[4, 8] = 8
    """Bits of a weight."""
    group: Literal[16, 32, 64, 128, 256] = 32
    """Inputs that share a step and a zero point; 32 costs 1 bit a weight more for the step, and 32 to 128 are usual."""
    symmetric: bool = True
    """Zero points in the middle; without, each group's own, which gains up to a bit where weights lean to one side."""
    products: Literal["int8", "float"] = "int8"
    """What linear layers multiply: each sample's inputs as int8 codes, with a step for each group and no calibration, or floats. In
    three layers of 1024 inputs at batch 1, one thread of an EPYC with VNNI, ONNX Runtime took 0.23 ms in float32, 0.07 ms by codes and
    0.24 ms at 4 bits by floats."""
    observer: Literal["minmax", "mse"] = "minmax"
    """A group's range: its extremes, or the clipping of least squared error, which gains at 4 bits."""
    layers: Literal["linear", "all"] = "all"
    """Linear layers alone, or convolutions too."""
    skip: tuple[str, ...] = ()
    """Paths of modules that stay as they are, with all below them."""

    def apply(self, value: Network, ctx: Context) -> Network:
        import torch

        from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
        from mapsto.nn.edits.grouped_weights import GroupedWeights, least_error
        from mapsto.nn.network.call_sites import trace
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.quantize.float_layers import LINEAR_ALONE, is_convolution, left_in_float, require_quantized, tell
        from mapsto.nn.quantize.placement import dynamic_layers
        from mapsto.nn.quantize.post_training import chosen_reasons, require_float, require_paths

        module = require_float(value, where=self.name)
        require_paths(module, self.skip, where=self.name)
        graph = trace(module, example_inputs(value.signature, 2)[0])
        pairs = foldable_pairs(module, graph)
        fold = [FoldBatchNorm(pairs=pairs)] if pairs else []
        for edit in fold:
            module = edit.apply(module)
        names = dynamic_layers(graph, skip=self.skip, convolutions=self.layers == "all")
        reasons = chosen_reasons(self.skip, (), asked=False)
        floats = left_in_float(module, graph, names, given=reasons)
        if self.layers == "linear":
            floats = {path: LINEAR_ALONE if is_convolution(module, path) else why for path, why in floats.items()}
        require_quantized(len(names), floats, where=self.name)
        tell(floats, ctx, count=len(names), asked=(*reasons.values(), LINEAR_ALONE))
        for name in names:
            if not bool(torch.isfinite(module.get_parameter(name)).all()):
                raise DomainError(
                    "the weight is not finite (NaN or infinity)", where=name, hint="train the network again"
                )
        attach = GroupedWeights(
            weights=names, bits=self.bits, group=self.group, symmetric=self.symmetric, products=self.products
        )
        module = attach.apply(module)
        if self.observer == "mse":
            least_error(module)
        return value.with_module(module, *fold, attach)
