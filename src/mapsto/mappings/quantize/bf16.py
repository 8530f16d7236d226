"""Round parameters to 16 bits: a file of half the size, hardly another result, and no gain in speed on a CPU.

``w → float32(round₁₆(w))``, whose relative error is at most 2⁻⁹ for bfloat16 and 2⁻¹² for float16. ONNX Runtime's CPU kernels for
convolutions and products are of float32 or integers: the file's 16-bit tensors are turned into float32 once, when it is loaded, so
that memory and time at run are those of float32. It is for a store and for transfer; `quantize.static` is for speed.

Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Bf16"]


class Bf16(Mapping[Network, Network]):
    """The network with batch norm folded and its parameters in 16 bits; it computes in float32.

    Raises `DomainError` for a network that is quantized already, or a parameter that is not finite in 16 bits.

    >>> import torch
    >>> from mapsto.mappings.networks.mlp import Mlp
    >>> network = Mlp(inputs=20, classes=3)()
    >>> x = torch.randn(50, 20)
    >>> halves = {format: Bf16(format=format)(network) for format in ("fp16", "bf16")}
    >>> size = lambda network: sum(tensor.nbytes for tensor in network.tensors.values())
    >>> [size(network) / size(half) for half in halves.values()]
    [2.0, 2.0]
    >>> errors = [float((half.module()(x) - network.module()(x)).abs().max().detach()) for half in halves.values()]
    >>> 0 < errors[0] < errors[1] < 0.01
    True
    """

    version: ClassVar[int] = 2

    format: Literal["bf16", "fp16"] = "bf16"
    """bfloat16 has the range of float32; float16 is 8 times as exact, up to 65,504."""

    def apply(self, value: Network, ctx: Context) -> Network:
        import torch

        from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
        from mapsto.nn.edits.half_weights import HalfWeights
        from mapsto.nn.network.call_sites import trace
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.quantize.float_layers import tell_all
        from mapsto.nn.quantize.post_training import require_float

        module = require_float(value, where=self.name)
        pairs = foldable_pairs(module, trace(module, example_inputs(value.signature, 2)[0]))
        fold = [FoldBatchNorm(pairs=pairs)] if pairs else []
        for edit in fold:
            module = edit.apply(module)
        attach = HalfWeights(format=self.format)
        module = attach.apply(module)
        for name, parameter in module.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise DomainError(
                    f"the parameter is not finite in {self.format}",
                    where=name,
                    hint="format bf16 holds what float32 holds; for NaN, train the network again",
                )
        tell_all(value, ctx, why=f"{self.format} keeps their weights in 16 bits and computes in 32")
        return value.with_module(module, *fold, attach)
