"""Quantize weights in groups along a layer's inputs; activations are float between layers.

``w ≈ (q − z) · s`` with one s and z for each run of `group` inputs of each output, so that one large weight spoils the steps of its
group alone. The steps and zero points are tensors of the network; the weights stay float and can be trained on. Products of
linear layers may be of integers: each group of a sample's inputs is then rounded to ``max |x| / 127`` when it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import require_none
from mapsto.nn.edits.quantizers import Simulation, is_quantized, kept, simulate
from mapsto.nn.network.call_sites import Site

__all__ = ["GroupedWeights"]

Bits = Literal[4, 8]


class GroupedWeights(Edit):
    """Weights are rounded where they are used; each gets two tensors, ``…_scale`` and ``…_zero``, shape (outputs, groups).

    >>> net = nn.Sequential(nn.Linear(32, 1, bias=False)).eval()
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.linspace(-0.1, 0.1, 32)), net[0].weight[0, -1].fill_(7)
    >>> x = torch.eye(32)
    >>> exact = net(x).squeeze()
    >>> rounded = GroupedWeights(weights=("0.weight",), bits=4, group=16).apply(net)(x).squeeze()
    >>> [round((rounded - exact)[part].abs().max().item(), 1) for part in (slice(0, 16), slice(16, 32))]
    [0.0, 0.1]
    """

    weights: tuple[str, ...] = Field(min_length=1)
    """Names of parameters, shape (outputs, ...)."""
    bits: Bits
    """Bits of a code."""
    group: int = Field(ge=16)
    """Inputs that share a step; a power of two."""
    symmetric: bool = True
    """Whether every zero point is the middle code when steps are first chosen."""
    products: Literal["float", "int8"] = "float"
    """What linear layers multiply: floats, or each sample's inputs as int8 codes, with a step for each group."""

    def apply(self, module: nn.Module) -> nn.Module:
        if is_quantized(module):
            raise DomainError(
                "the network is quantized already", where="grouped_weights", hint="quantize it once, at the end"
            )
        require_none(module, where="grouped_weights")
        for name in self.weights:
            path, _, own = name.rpartition(".")
            try:
                owner, weight = module.get_submodule(path), module.get_parameter(name)
            except AttributeError as error:
                raise DomainError(str(error), where=name, hint="edits replay in the order they were made") from error
            scale, zero = steps(weight, self.bits, self.group, symmetric=self.symmetric)
            owner.register_buffer(f"{own}_scale", scale)
            owner.register_buffer(f"{own}_zero", zero)
        object.__setattr__(module, "mapsto_grouped", self)
        return simulate(module, _Simulation)


def grouped(weight: Tensor, group: int) -> Tensor:
    """A weight (outputs, ...) as (outputs, groups, group), filled up with zeros."""
    rows = weight.flatten(1)
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % group)).unflatten(1, (-1, group))


def steps(weight: Tensor, bits: int, group: int, *, symmetric: bool, clip: float = 1.0) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group, both float32 of shape (outputs, groups), that cover its values times `clip`."""
    rows, levels = grouped(weight.detach().double(), group) * clip, 2**bits - 1
    if symmetric:
        scale = rows.abs().amax(2) / (levels // 2)
        scale = torch.where(scale > 0, scale, 1.0)
        return scale.float(), torch.full_like(scale, (levels + 1) // 2, dtype=torch.float32)
    low, high = rows.amin(2).clamp_max(0), rows.amax(2).clamp_min(0)
    scale = (high - low) / levels
    scale = torch.where(scale > 0, scale, 1.0).float()
    return scale, (-low / scale).round().clamp(0, levels).float()


def codes_of(weight: Tensor, scale: Tensor, zero: Tensor, bits: int, group: int) -> Tensor:
    """The codes of a weight, 0 to 2^bits − 1 as floats, shape (outputs, groups, group)."""
    codes = (grouped(weight, group) / scale.unsqueeze(2)).round() + zero.unsqueeze(2)
    return codes.clamp(0, 2**bits - 1)


def dequantized(codes: Tensor, scale: Tensor, zero: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight that codes stand for, of its own shape."""
    rows = ((codes - zero.unsqueeze(2)) * scale.unsqueeze(2)).flatten(1)
    return rows[:, : torch.Size(shape[1:]).numel()].reshape(shape)


def least_error(module: nn.Module) -> None:
    """Set each group's step and zero point to those of least squared error, among clippings to 0.5 to 1 of its range."""
    edit: GroupedWeights = module.mapsto_grouped  # type: ignore[assignment]
    for entry in _entries(module):
        weight = getattr(entry.owner, entry.own).detach()
        wanted = grouped(weight, edit.group)
        scale, zero = entry.buffer("scale"), entry.buffer("zero")
        least = torch.full_like(scale, torch.inf)
        for clip in torch.linspace(0.5, 1.0, 26).tolist():
            tried = steps(weight, edit.bits, edit.group, symmetric=edit.symmetric, clip=clip)
            codes = codes_of(weight, *tried, edit.bits, edit.group)
            error = ((codes - tried[1].unsqueeze(2)) * tried[0].unsqueeze(2) - wanted).square().sum(2)
            better = error < least
            scale.copy_(torch.where(better, tried[0], scale))
            zero.copy_(torch.where(better, tried[1], zero))
            least = torch.minimum(error, least)


def rounded_inputs(x: Tensor, group: int) -> Tensor:
    """Inputs (..., K), each group of each row on 127 steps up to its greatest absolute value; gradients pass through."""
    values = x.detach()
    rows = torch.nn.functional.pad(values, (0, -x.shape[-1] % group)).unflatten(-1, (-1, group))
    scale = rows.abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, 1.0)
    return ((rows / scale).round() * scale).flatten(-2)[..., : x.shape[-1]] + (x - values)


def saved_bytes(module: nn.Module) -> float:
    """How many bytes fewer the codes and zero points take than the floats that stand for them; 0 for a network without."""
    if not hasattr(module, "mapsto_grouped"):
        return 0.0
    edit: GroupedWeights = module.mapsto_grouped  # type: ignore[assignment]
    saved = 0.0
    for entry in _entries(module):
        weight, zero = getattr(entry.owner, entry.own), entry.buffer("zero")
        codes = zero.numel() * edit.group
        saved += weight.numel() * weight.element_size() + zero.numel() * zero.element_size()
        saved -= (codes + zero.numel()) * edit.bits / 8
    return saved


class _Weight(NamedTuple):
    name: str
    owner: nn.Module
    own: str

    def buffer(self, kind: str) -> Tensor:
        return getattr(self.owner, f"{self.own}_{kind}")


class _Simulation(Simulation):
    def __init__(self, root: nn.Module) -> None:
        super().__init__(root)
        self._edit: GroupedWeights = root.mapsto_grouped  # type: ignore[assignment]
        self._weights = {id(getattr(entry.owner, entry.own)): entry for entry in _entries(root)}

    @staticmethod
    def bake(module: nn.Module) -> None:
        """Store each weight's codes as bytes, of 4 bits two in one, shape (outputs, groups, bytes)."""
        edit: GroupedWeights = module.mapsto_grouped  # type: ignore[assignment]
        with torch.no_grad():
            for entry in _entries(module):
                weight, zero = getattr(entry.owner, entry.own), entry.buffer("zero")
                codes = codes_of(weight, entry.buffer("scale"), zero, edit.bits, edit.group)
                entry.owner.register_buffer(f"{entry.own}_codes", _packed(codes, edit.bits), persistent=False)
                entry.owner.register_buffer(f"{entry.own}_zeros", _packed(zero, edit.bits), persistent=False)

    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if site.function == "linear":
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            entry, integers = self._weights.get(id(given["weight"])), self._edit.products == "int8"
            if entry is not None and torch.compiler.is_exporting() and (integers or self._edit.bits == 4):
                return self._product(entry, given["input"], given["weight"], given.get("bias"))
            if entry is not None and integers:
                x = rounded_inputs(given["input"], self._edit.group)
                return function(x, self._used(given["weight"]), given.get("bias"))
        return function(
            *(self._used(value) for value in args), **{name: self._used(value) for name, value in kwargs.items()}
        )

    def _used(self, value: Any) -> Any:
        entry = self._weights.get(id(value)) if isinstance(value, Tensor) else None
        if entry is None:
            return value
        scale, zero, bits, group = entry.buffer("scale"), entry.buffer("zero"), self._edit.bits, self._edit.group
        if torch.compiler.is_exporting():
            codes = _unpacked(kept(entry.buffer("codes")), bits)
            return dequantized(codes, scale, zero, value.shape)
        codes = codes_of(value.detach(), scale, zero, bits, group)
        return dequantized(codes, scale, zero, value.shape) + (value - value.detach())

    def _product(self, entry: _Weight, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        attributes: dict[str, Any] = {
            "K": weight.shape[1],
            "N": weight.shape[0],
            "bits": self._edit.bits,
            "block_size": self._edit.group,
            "accuracy_level": 4 if self._edit.products == "int8" else 1,
        }
        inputs = (x, entry.buffer("codes"), entry.buffer("scale"), entry.buffer("zeros"))
        shape = (*x.shape[:-1], weight.shape[0])
        product = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits", inputs, attributes, dtype=x.dtype, shape=shape, version=1
        )
        return product if bias is None else product + bias


def _entries(root: nn.Module) -> list[_Weight]:
    edit: GroupedWeights = root.mapsto_grouped  # type: ignore[assignment]
    places = [name.rpartition(".") for name in edit.weights]
    entries = [_Weight(f"{path}.{own}", root.get_submodule(path), own) for path, _, own in places]
    return [entry for entry in entries if hasattr(entry.owner, f"{entry.own}_scale")]


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Codes as bytes; of 4 bits the even ones are the low halves, and an odd last one stands alone."""
    whole = codes.to(torch.uint8)
    if bits == 8:
        return whole
    whole = torch.nn.functional.pad(whole, (0, whole.shape[-1] % 2))
    return whole[..., ::2] | (whole[..., 1::2] << 4)


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """Codes as floats."""
    if bits == 8:
        return packed.float()
    high = (packed.float() / 16).floor()
    return torch.stack((packed.float() - 16 * high, high), dim=-1).flatten(-2)
