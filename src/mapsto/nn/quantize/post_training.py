"""What quantizing after training needs: fields that say how scales are read off samples, and the network made ready for it.

Shared by the mappings that choose quantizers (`quantize.static`, `quantize.mixed`) and by those that correct a network which has
them (`quantize.adaround`, `quantize.correct_bias`, `quantize.aware`). This file imports torch only when there is work to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Edit, Network
from mapsto.nn.train.calibration_fields import CalibrationFields

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.edits.quantizers import Quantizers
    from mapsto.nn.quantize.placement import Placement

__all__ = [
    "Calibrated",
    "Prepared",
    "chosen_reasons",
    "needs_reduced_range",
    "prepared",
    "quantized_edit",
    "quantized_example",
    "require_float",
    "require_paths",
    "with_learned_steps",
    "with_scales",
    "without_quantizers",
]


class Calibrated(CalibrationFields):
    """The fields of every mapping that chooses quantizers from samples."""

    bits: int = Field(
        default=8,
        ge=2,
        le=8,
        description="Bits of weights and activations; ONNX Runtime's integer kernels are for 8.",
    )
    signed: bool = Field(
        default=False,
        description=(
            "Activations as int8 instead of uint8; with ONNX Runtime on x86, ResNet-20 was 2.6 times slower so in our measurement."
        ),
    )
    observer: Literal["minmax", "percentile", "mse", "entropy"] = Field(
        default="minmax",
        description=(
            "How a range is read off the samples: the extremes, the extremes without a tail, the clipping of least squared error "
            "(for weights too), or that of least divergence (Migacz 2017; for activations, weights by their extremes). On ResNet-20 / "
            "CIFAR-10 (float 91.73) the first three gave 91.71, 91.74 and 91.67."
        ),
    )
    percentile: float = Field(
        default=99.99,
        gt=50,
        le=100,
        description="With the percentile observer: the share of an activation's values that its range holds, in percent.",
    )
    reduce_range: Literal["auto"] | bool = Field(
        default="auto",
        description=(
            'Weights of 7 bits at most, so that sums of two products fit 16 bits on CPUs without VNNI; "auto" looks at this CPU once '
            "and records the outcome in the quantizers. Depthwise convolutions keep 8: their kernels add product by product."
        ),
    )
    first: Literal["auto", "float", "int"] = Field(
        default="auto",
        description=(
            'The first convolution; "auto" leaves it in float where its input has fewer than 3 channels, which integer kernels do not '
            "fill, and where there are fewer than 8 bits. For images in colour integers were as accurate, and the whole up to 11 % faster "
            "in ONNX Runtime and OpenVINO."
        ),
    )
    skip: tuple[str, ...] = Field(default=(), description="Paths of modules that stay in float with all below them.")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A float network whose batch norms are folded, and what is to be quantized with."""

    module: nn.Module
    edits: tuple[Edit, ...]
    batches: list[Tensor]
    skip: tuple[str, ...]
    """Modules that stay float: those that were asked for, and a first layer that does not gain."""
    reasons: dict[str, str]
    """Why each of them does."""


def prepared(fields: Calibrated, value: Network, ctx: Context, *, where: str) -> Prepared:
    """Check the network, draw the samples, fold batch norms. Raises `DomainError` and `DataError`."""
    from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
    from mapsto.nn.network.call_sites import trace
    from mapsto.nn.quantize.placement import thin_first_layer

    module = require_float(value, where=where)
    require_paths(module, fields.skip, where=where)
    batches = fields.batches(value, ctx, where=where)
    edits: list[Edit] = []
    pairs = foldable_pairs(module, trace(module, batches[0][:2]))
    if pairs:
        edits.append(FoldBatchNorm(pairs=pairs))
        module = edits[0].apply(module)
    always = fields.first == "float" or fields.bits < 8
    thin = thin_first_layer(module, trace(module, batches[0][:2]), always=always)
    thin = () if fields.first == "int" else thin
    reasons = chosen_reasons(fields.skip, thin, asked=fields.first == "float")
    return Prepared(module=module, edits=tuple(edits), batches=batches, skip=(*fields.skip, *thin), reasons=reasons)


SKIPPED = "skip names it"
"""Why a module stays float that the user has named."""
FIRST = "it is the first layer, which gains little by integers (first: int quantizes it)"
"""Why the first layer stays float."""


def chosen_reasons(skip: Iterable[str], first: Iterable[str], *, asked: bool) -> dict[str, str]:
    """Path → why it stays float, of what the user names and of a first layer."""
    return {**dict.fromkeys(first, "first is float" if asked else FIRST), **dict.fromkeys(skip, SKIPPED)}


def require_float(value: Network, *, where: str) -> nn.Module:
    """The network's module. Raises `DomainError` where it is quantized already, or has adapters that could be merged."""
    from mapsto.nn.edits._adapted_layer import require_none
    from mapsto.nn.edits.quantizers import has_quantized_part

    module = value.module()
    if has_quantized_part(module):
        raise DomainError("the network is quantized already", where=where, hint="quantize once, as the last change")
    require_none(module, where=where)
    return module


def require_paths(module: nn.Module, paths: Iterable[str], *, where: str) -> None:
    """Raises `DomainError` for a path in `skip` that is no module."""
    known = dict(module.named_modules())
    for path in paths:
        if path not in known:
            raise DomainError(f"'{path}' in skip is no module of it", where=where, hint=f"known: {', '.join(known)}")


def quantized_edit(value: Network, *, where: str) -> Quantizers:
    """The quantizers of a network. Raises `DomainError` where it has none, or was edited after it got them."""
    from mapsto.nn.edits.quantizers import Quantizers

    last = value.edits[-1] if value.edits else None
    if not isinstance(last, Quantizers):
        there = any(isinstance(edit, Quantizers) for edit in value.edits)
        raise DomainError(
            f"the network was edited after it was quantized ({type(last).__name__})"
            if there
            else "the network has no quantizers on weights and activations",
            where=where,
            hint="put it right behind quantize.static or quantize.mixed",
        )
    return last


def without_quantizers(value: Network) -> nn.Module:
    """The float network behind a quantized one: its module without the quantizers, the tensors as they are."""
    import dataclasses

    return dataclasses.replace(value, edits=value.edits[:-1]).module()


def with_scales(value: Network, edit: Quantizers, scales: Mapping[int, tuple[float, ...]]) -> Quantizers:
    """The quantizers of a network with other scales, by number; a bias's scale follows its input's and its weight's."""
    import dataclasses

    from mapsto.nn.edits.quantizers import Quantizers
    from mapsto.nn.quantize.quantizer_params import bias_quantizer

    changed = [
        dataclasses.replace(quantizer, scale=scales.get(index, quantizer.scale))
        for index, quantizer in enumerate(edit.quantizers)
    ]
    by_site = {quantizer.site: quantizer for quantizer in changed}
    for name, (weight, source) in _placement_of(value).biases.items():
        (path, _, bias), (owner, _, tensor) = name.rpartition("."), weight.rpartition(".")
        bias_site, weight_site = (
            source._replace(path=path, function=bias, call=0),
            source._replace(path=owner, function=tensor, call=0),
        )
        if bias_site in by_site:
            by_site[bias_site] = bias_quantizer(name, by_site[weight_site], by_site[source])
    return Quantizers(quantizers=tuple(by_site[quantizer.site] for quantizer in changed))


def with_learned_steps(value: Network, *, where: str) -> nn.Module:
    """The module of a quantized network whose steps are parameters; a pooling that selects shares its input's."""
    from mapsto.nn.edits.quantizers import learn_steps

    number = {quantizer.site: index for index, quantizer in enumerate(quantized_edit(value, where=where).quantizers)}
    follows = {site: source for site, source in _placement_of(value).follows.items() if {site, source} <= number.keys()}
    module = value.module()
    learn_steps(module, {number[site]: number[source] for site, source in follows.items()})
    return module


def _placement_of(value: Network) -> Placement:
    """Where a quantized network's quantizers would go if every layer had them."""
    from mapsto.nn.network.call_sites import trace
    from mapsto.nn.network.examples import example_inputs
    from mapsto.nn.quantize.placement import place_quantizers

    return place_quantizers(trace(without_quantizers(value), example_inputs(value.signature, 2)[0]))


def quantized_example() -> Network:
    """A small quantized classifier of handwritten digits, for the contract suite: what mappings of quantized networks take."""
    import dataclasses

    from mapsto import discovery

    network: Network = discovery.find("mappings", "networks.conv4")(channels=1, size=16, width=4, classes=10)(seed=0)
    named = dataclasses.replace(network, signature=dataclasses.replace(network.signature, classes=(*"0123456789",)))
    digits = discovery.find("data", "digits")(size=16)
    return discovery.find("mappings", "quantize.static")(data=digits, samples=64)(named, seed=0)


def needs_reduced_range() -> bool:
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
