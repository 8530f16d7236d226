"""Quantize weights once and each layer's input anew at every call: integer products, and no calibration data.

``y = (q_x − z) q_wᵀ · s_x s_w + b`` with ``s_x = (max(x, 0) − min(x, 0)) / 255`` and ``z = round(−min(x, 0) / s_x)`` of the call's own
input, the whole batch alike, as ONNX's DynamicQuantizeLinear defines it. Results stay float. Tables that are looked up in are of codes too,
each row with a step of its own, ``max |row| / 127``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import require_none
from mapsto.nn.edits.quantizers import (
    Quantizer,
    Simulation,
    attach_scales,
    is_quantized,
    kept,
    quantized_weights,
    scales_of,
    simulate,
)
from mapsto.nn.network.call_sites import Site

__all__ = ["DynamicQuantizers"]

LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
"""Functions for whose integer form ONNX has an operator: MatMulInteger and ConvInteger."""


class DynamicQuantizers(Edit):
    """Quantizers on weights; the input of each layer that has one is quantized when it runs.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    >>> _ = nn.init.constant_(net[0].weight, 0.4)
    >>> weight = Quantizer(path="0", function="weight", weight=True, scale=(0.25,), zero_point=(0,), axis=0, quant_min=-128, quant_max=127)
    >>> DynamicQuantizers(weights=(weight,)).apply(net)(torch.ones(1, 2)).item()
    1.0
    """

    weights: tuple[Quantizer, ...] = ()
    """A symmetric quantizer for each weight, with a scale for each output."""
    tables: tuple[str, ...] = ()
    """Names of the weights of embeddings whose rows are stored as int8."""

    def __post_init__(self) -> None:
        if not self.weights and not self.tables:
            raise DomainError("it names no weight and no table", where="dynamic_quantizers", hint="name one")

    def apply(self, module: nn.Module) -> nn.Module:
        if is_quantized(module):
            raise DomainError(
                "the network is quantized already", where="dynamic_quantizers", hint="quantize it once, at the end"
            )
        require_none(module, where="dynamic_quantizers")
        for index, quantizer in enumerate(self.weights):
            attach_scales(module, index, quantizer)
        for name in self.tables:
            try:
                module.get_parameter(name)
            except AttributeError as error:
                raise DomainError(str(error), where=name, hint="edits replay in the order they were made") from error
        object.__setattr__(module, "mapsto_quantizers", self.weights)
        object.__setattr__(module, "mapsto_tables", self.tables)
        return simulate(module, _Simulation)


def saved_bytes(module: nn.Module) -> int:
    """How many bytes fewer the codes of tables and their steps take than the floats that stand for them; 0 for a network without."""
    tables = [module.get_parameter(name) for name in getattr(module, "mapsto_tables", ())]
    return sum(3 * table.numel() - 4 * len(table) for table in tables)


def row_steps(rows: Tensor) -> Tensor:
    """The step of each row (..., D), shape (..., 1)."""
    steps = rows.detach().abs().amax(-1, keepdim=True) / 127
    return torch.where(steps > 0, steps, 1.0)


def rounded_rows(rows: Tensor) -> Tensor:
    """Rows (..., D), each on 127 steps up to its greatest absolute value; gradients pass through."""
    steps = row_steps(rows)
    return (rows.detach() / steps).round() * steps + (rows - rows.detach())


def dynamically_quantized(x: Tensor) -> Tensor:
    """A tensor of any shape rounded to 256 steps from its least to its greatest value, 0 among them; gradients pass through."""
    low, high = (extreme.clamp(*bounds) for extreme, bounds in zip(torch.aminmax(x.detach()), _BOUNDS, strict=True))
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (-low / scale).round().clamp(0, 255)
    codes = ((x.detach() / scale).round() + zero).clamp(0, 255)
    return (codes - zero) * scale + (x - x.detach())


_BOUNDS = ((None, 0.0), (0.0, None))


class _Simulation(Simulation):
    def __init__(self, root: nn.Module) -> None:
        super().__init__(root)
        found = list(quantized_weights(root))
        self._quantizers = {index: quantizer for index, quantizer, _ in found}
        self._weights = {id(weight): index for index, _, weight in found}
        names: tuple[str, ...] = getattr(root, "mapsto_tables", ())
        self._tables = {id(root.get_parameter(name)): number for number, name in enumerate(names)}

    @staticmethod
    def bake(module: nn.Module) -> None:
        """Store each weight's codes: int8 for a product, as (in, out); uint8 around 128 for a convolution."""
        with torch.no_grad():
            for index, quantizer, weight in quantized_weights(module):
                scale, _ = scales_of(module, index)
                codes = (weight / _along(scale, weight.ndim, 0)).round().clamp(quantizer.quant_min, quantizer.quant_max)
                stored = codes.T.contiguous().to(torch.int8) if weight.ndim == 2 else (codes + 128).to(torch.uint8)
                module.register_buffer(_codes_name(index), stored, persistent=False)
            for number, name in enumerate(getattr(module, "mapsto_tables", ())):
                table = module.get_parameter(name)
                steps = row_steps(table)
                module.register_buffer(
                    _table_name(number, "codes"), (table / steps).round().to(torch.int8), persistent=False
                )
                module.register_buffer(_table_name(number, "steps"), steps, persistent=False)
        module.register_buffer(_MIDDLE, torch.tensor(128, dtype=torch.uint8), persistent=False)

    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        weight = given.get("weight")
        number = self._tables.get(id(weight)) if site.function == "embedding" else None
        if number is not None:
            return self._looked_up(number, function, args, kwargs)
        index = self._weights.get(id(weight)) if isinstance(weight, Tensor) else None
        if index is None or not isinstance(weight, Tensor) or site.function not in LAYERS:
            return function(*args, **kwargs)
        x, bias = given.pop("input"), given.pop("bias", None)
        del given["weight"]
        if torch.compiler.is_exporting():
            if site.function == "linear":
                return self._exported_linear(index, x, bias)
            with torch.no_grad():
                shape = function(x, weight, None, **given).shape
            return self._exported_convolution(index, x, bias, shape, weight.shape[2:], **given)
        quantizer, (scale, zeros) = self._quantizers[index], scales_of(self.root, index)
        lowest, highest = quantizer.quant_min, quantizer.quant_max
        rounded = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, lowest, highest)
        return function(dynamically_quantized(x), rounded, bias, **given)

    def _looked_up(
        self, number: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Rows of a table; `function` takes ids and the table first."""
        if not torch.compiler.is_exporting():
            return rounded_rows(function(*args, **kwargs))
        codes, steps = (kept(getattr(self.root, _table_name(number, part))) for part in ("codes", "steps"))
        ids = args[0] if args else kwargs["input"]
        layer = args[2] if len(args) > 2 else None
        rows = cast("Tensor", layer.rows)[ids] if isinstance(layer, nn.Embedding) else ids  # its rows were pruned
        return nn.functional.embedding(rows, codes).float() * nn.functional.embedding(rows, steps)

    def _input(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        types, shapes = (torch.uint8, torch.float32, torch.uint8), (x.shape, (), ())
        codes, step, zero = torch.onnx.ops.symbolic_multi_out(
            "DynamicQuantizeLinear", (x,), dtypes=types, shapes=shapes
        )
        return codes, step, zero

    def _exported_linear(self, index: int, x: Tensor, bias: Tensor | None) -> Tensor:
        stored, (scale, _) = getattr(self.root, _codes_name(index)), scales_of(self.root, index)
        codes, step, zero = self._input(x)
        shape = (*x.shape[:-1], stored.shape[1])
        sums = torch.onnx.ops.symbolic("MatMulInteger", (codes, stored, zero), dtype=torch.int32, shape=shape)
        scaled = sums.float() * (step * scale)
        return scaled if bias is None else scaled + bias

    def _exported_convolution(
        self,
        index: int,
        x: Tensor,
        bias: Tensor | None,
        shape: Sequence[int | torch.SymInt],
        kernel: Sequence[int],
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        stored, (scale, _) = getattr(self.root, _codes_name(index)), scales_of(self.root, index)
        dilations = _each(dilation, len(kernel))
        attributes: dict[str, Any] = {
            "strides": _each(stride, len(kernel)),
            "pads": _pads(padding, kernel, dilations),
            "dilations": dilations,
            "group": groups,
        }
        codes, step, zero = self._input(x)
        inputs = (codes, stored, zero, getattr(self.root, _MIDDLE))
        sums = torch.onnx.ops.symbolic("ConvInteger", inputs, attributes, dtype=torch.int32, shape=shape)
        scaled = sums.float() * (step * _along(scale, len(shape), 1))
        return scaled if bias is None else scaled + _along(bias, len(shape), 1)


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MIDDLE = "quantizer_middle"
"""The code of 0 in a convolution's uint8 weights, 128."""


def _each(value: Any, count: int) -> list[int]:
    """One number for each dimension."""
    numbers: list[int] = (
        [int(part) for part in cast("Sequence[int]", value)] if isinstance(value, Sequence) else [value]
    )
    return numbers * count if len(numbers) == 1 else numbers


def _pads(padding: Any, kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """As ONNX has them: those before each dimension, then those after."""
    if padding == "same":
        totals = [dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)]
        return [total // 2 for total in totals] + [total - total // 2 for total in totals]
    return _each(0 if padding == "valid" else padding, len(kernel)) * 2


def _along(vector: Tensor, ndim: int, axis: int) -> Tensor:
    return vector.view([-1 if dimension == axis else 1 for dimension in range(ndim)])


def _table_name(number: int, part: str) -> str:
    return f"table_{number}_{part}"


def _codes_name(index: int) -> str:
    return f"quantizer_{index}_codes"
