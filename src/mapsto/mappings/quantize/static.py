"""Quantize to int8 after training: scales are read from a few hundred samples, and every operation is made ready for integers.

``x ≈ (q − z) · s`` with ``q`` an 8-bit code: weights symmetric with one ``s`` for each output channel, activations asymmetric;
batch norm is folded first. It costs seconds, and training can go on afterwards: gradients pass straight through.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.nn.quantize.post_training import Calibrated
from mapsto.nn.quantize.post_training import needs_reduced_range as _needs_reduced_range

__all__ = ["Static"]


class Static(Calibrated, Mapping[Network, Network]):
    """Fold batch norm, calibrate, attach quantizers.

    Raises `SpecError` unless one of `data` and `tasks` is given, `DomainError` for a network that is quantized already or that the
    data does not fit, and `DataError` for data of fewer than 8 samples or with values that are not finite.

    >>> from mapsto.data.sets.digits import Digits
    >>> from mapsto.mappings.networks.conv4 import Conv4
    >>> from mapsto.nn.network.inference import forward
    >>> data = Digits(size=16)
    >>> network = Conv4(channels=1, size=16, width=8, classes=10)()
    >>> outputs = {None: network, **{bits: Static(data=data, samples=64, bits=bits)(network) for bits in (8, 4)}}
    >>> outputs = {bits: forward(n.module(), data.open().inputs[:50], n.signature.preprocessing) for bits, n in outputs.items()}
    >>> eight, four = (float((outputs[bits] - outputs[None]).abs().mean() / outputs[None].std()) for bits in (8, 4))
    >>> 0 < eight < 0.05 < four  # of the outputs' spread
    True
    """

    version: ClassVar[int] = 4

    contract: ClassVar[dict[str, Any]] = {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}}}

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.edits.quantizers import Quantizers
        from mapsto.nn.network.call_sites import trace
        from mapsto.nn.quantize.calibration import calibrate
        from mapsto.nn.quantize.float_layers import left_in_float, require_quantized, tell
        from mapsto.nn.quantize.post_training import prepared

        ready = prepared(self, value, ctx, where=self.name)
        quantizers = calibrate(
            ready.module,
            ready.batches,
            bits=self.bits,
            signed=self.signed,
            observer=self.observer,
            percentile=self.percentile,
            reduce_range=_needs_reduced_range() if self.reduce_range == "auto" else self.reduce_range,
            skip=ready.skip,
        )
        names = {f"{q.path}.{q.function}".lstrip(".") for q in quantizers if q.weight and q.bits <= 8}
        graph = trace(ready.module, ready.batches[0][:2])
        floats = left_in_float(ready.module, graph, names, given=ready.reasons)
        require_quantized(len(names), floats, where=self.name)
        tell(floats, ctx, count=len(names), asked=ready.reasons.values())
        edit = Quantizers(quantizers=quantizers)
        return value.with_module(edit.apply(ready.module), *ready.edits, edit)
