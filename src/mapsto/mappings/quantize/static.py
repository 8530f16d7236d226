"""Quantize to int8 after training: scales are read from a few hundred samples, and every operation is made ready for integers.

``x ≈ (q − z) · s`` with ``q`` an 8-bit code: weights symmetric with one ``s`` for each output channel, activations asymmetric;
batch norm is folded first. It costs seconds, and training can go on afterwards: gradients pass straight through.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018;
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper", 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.errors import DomainError
from mapsto.kinds import Edit, Network
from mapsto.mapping import Context, DataSource, Mapping

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Static"]

_BATCH = 64


class Static(Mapping[Network, Network]):
    """Fold batch norm, calibrate, attach quantizers.

    Raises `DomainError` for a network that is quantized already or that the data does not fit, and `DataError` for data
    without a sample or with values that are not finite.
    """

    data: DataSource
    """Calibration data; its labels are not used."""
    samples: int = Field(default=512, ge=1)
    """How many samples are drawn for calibration, of the data at most all; 100 to 1000 do (Krishnamoorthi 2018)."""
    bits: int = Field(default=8, ge=2, le=8)
    """Bits of weights and activations; ONNX Runtime's integer kernels are for 8."""
    signed: bool = False
    """Activations as int8 instead of uint8; with ONNX Runtime on x86, ResNet-20 was 2.6 times slower so in our measurement."""
    observer: Literal["minmax", "percentile", "mse"] = "minmax"
    """How a range is read off the samples: the extremes, the extremes without a tail, or the clipping of least squared error
    (for weights too). On ResNet-20 / CIFAR-10 (float 91.73) they gave 91.71, 91.74 and 91.67."""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """With the percentile observer: the share of an activation's values that its range holds, in percent."""
    reduce_range: Literal["auto"] | bool = "auto"
    """Weights of one bit less, so that sums of two products fit 16 bits on CPUs without VNNI; "auto" looks at this CPU once and
    records the outcome in the quantizers."""
    first: Literal["auto", "float", "int"] = "auto"
    """The first convolution; "auto" leaves it in float where its input has fewer than 4 channels, which integer kernels do not
    fill: faster in our measurements, and nearer to the original."""
    skip: tuple[str, ...] = ()
    """Paths of modules that stay in float with all below them."""

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.calibration import calibrate, thin_first_layer
        from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
        from mapsto.nn.edits.quantizers import Quantizers, is_quantized
        from mapsto.nn.sites import trace

        module = value.module()
        if is_quantized(module):
            raise DomainError(
                "the network is quantized already", where=self.name, hint="quantize once, as the last change"
            )
        known = dict(module.named_modules())
        for path in self.skip:
            if path not in known:
                raise DomainError(
                    f"'{path}' in skip is no module of it", where=self.name, hint=f"known: {', '.join(known)}"
                )
        batches = self._batches(value, ctx)
        edits: list[Edit] = []
        pairs = foldable_pairs(module, trace(module, batches[0][:2]))
        if pairs:
            edits.append(FoldBatchNorm(pairs=pairs))
            module = edits[0].apply(module)
        thin = thin_first_layer(module, trace(module, batches[0][:2]), always=self.first == "float")
        quantizers = calibrate(
            module,
            batches,
            bits=self.bits,
            signed=self.signed,
            observer=self.observer,
            percentile=self.percentile,
            reduce_range=_needs_reduced_range() if self.reduce_range == "auto" else self.reduce_range,
            skip=self.skip if self.first == "int" else (*self.skip, *thin),
        )
        if not any(quantizer.weight for quantizer in quantizers):
            raise DomainError(
                "no convolution or linear layer is left to quantize", where=self.name, hint="skip fewer modules"
            )
        edits.append(Quantizers(quantizers=quantizers))
        return value.with_module(edits[-1].apply(module), *edits)

    def _batches(self, value: Network, ctx: Context) -> list[Tensor]:
        """The drawn samples as inputs of the network, a few batches of shape (up to 64, ...)."""
        from mapsto.data.checks import require_some
        from mapsto.nn.preprocess import prepare

        samples = require_some(ctx.dataset(self.data), where=self.name)
        chosen = ctx.random("calibration").permutation(len(samples))[: self.samples]
        inputs = prepare(samples.inputs[chosen], value.signature.preprocessing)
        wanted = value.signature.input_shape(len(chosen))
        if len(value.signature.inputs) != 1 or tuple(inputs.shape) != wanted:
            raise DomainError(
                f"the data gives inputs of shape {tuple(inputs.shape[1:])}, the network takes {wanted[1:]}",
                where=self.name,
                hint="calibrate with data like the network's own",
            )
        return list(inputs.split(_BATCH))


def _needs_reduced_range() -> bool:
    """Whether this CPU adds pairs of u8 × s8 products in 16 bits, which saturate: x86 without VNNI."""
    import platform

    import torch

    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    return not (torch.cpu._is_vnni_supported() or "avx_vnni" in _cpu_flags())


def _cpu_flags() -> str:
    from pathlib import Path

    listing = Path("/proc/cpuinfo")
    return listing.read_text(encoding="utf-8", errors="replace") if listing.is_file() else ""
