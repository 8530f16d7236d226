"""Take back the mean error that rounding weights causes: a shift of each channel, which its bias absorbs.

``b ← b − E[(Ŵ − W) x̂]`` with the quantized weight Ŵ and the layer's quantized input x̂, whose mean is taken over samples and
places. It costs one pass over the samples, nothing at run time, and helps most where bits are few or layers are thin (depthwise).

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2 and appendix D (the
means are measured, as there where samples are to be had).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.nn.train.calibration_fields import CalibrationFields

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CorrectBias"]


class CorrectBias(CalibrationFields, Mapping[Network, Network]):
    """The quantized network (from `quantize.static` or `quantize.mixed`) with corrected biases; its quantizers stay as they are.

    Raises `SpecError` unless one of `data` and `tasks` is given, `DomainError` for a network without quantizers or whose layers have
    no biases, or that the data does not fit, and `DataError` for fewer than 8 samples.

    >>> from mapsto.data.sets.digits import Digits
    >>> from mapsto.mappings.networks.conv4 import Conv4
    >>> from mapsto.mappings.quantize.static import Static
    >>> from mapsto.nn.network.inference import forward
    >>> data = Digits(size=16)
    >>> network = Conv4(channels=1, size=16, width=8, classes=10)()
    >>> small = Static(data=data, samples=64, bits=4)(network)
    >>> better = CorrectBias(data=data, samples=64)(small)
    >>> outputs = [forward(n.module(), data.open().inputs[:200], n.signature.preprocessing) for n in (network, small, better)]
    >>> shift = [float((output - outputs[0]).mean(0).abs().mean()) for output in outputs]
    >>> shift[2] < shift[1]
    True
    """

    contract: ClassVar[dict[str, Any]] = {"data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}}}

    @staticmethod
    def contract_input() -> Network:
        """A quantized network, what this maps from."""
        from mapsto.nn.quantize.post_training import quantized_example

        return quantized_example()

    def apply(self, value: Network, ctx: Context) -> Network:
        import torch

        from mapsto.nn.quantize.adaround import captured, layer_output, quantized_layers, rounded
        from mapsto.nn.quantize.float_layers import tell_again
        from mapsto.nn.quantize.post_training import quantized_edit

        quantized_edit(value, where=self.name)
        batches = self.batches(value, ctx, where=self.name)
        module = value.module()
        layers = [layer for layer in quantized_layers(module) if cast("Any", layer.module).bias is not None]
        if not layers:
            raise DomainError("no quantized layer has a bias", where=self.name, hint="leave this step out")
        tell_again(value, ctx, where=self.name)
        sums: dict[str, Tensor] = {}
        counts = dict.fromkeys((layer.path for layer in layers), 0)
        for batch in batches:
            inputs = captured(module, batch, counts)
            for path, quantizer, layer in layers:
                if path not in inputs:
                    continue
                weight = cast("Tensor", layer.weight).detach()
                with torch.no_grad():
                    shift = layer_output(layer, inputs[path], rounded(weight, quantizer) - weight, bias=False)
                channels = shift.movedim(-1 if isinstance(layer, torch.nn.Linear) else 1, 0).flatten(1).double()
                sums[path] = sums.get(path, torch.zeros(len(channels), dtype=torch.float64)) + channels.sum(1)
                counts[path] += channels.shape[1]
        with torch.no_grad():
            for path, _, layer in layers:
                if counts[path]:
                    cast("Tensor", layer.bias).sub_(sums[path] / counts[path])
        return value.with_module(module)
