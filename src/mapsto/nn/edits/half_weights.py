"""Keep parameters in 16 bits and compute in 32: half the bytes, and the results of rounding each weight once.

``y = f(x; float32(round₁₆(w)))`` with bfloat16 (8 bits of mantissa, float32's range) or float16 (11 bits, up to 65,504).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import require_none
from mapsto.nn.edits.quantizers import Simulation, is_quantized, kept, simulate
from mapsto.nn.network.call_sites import Site

__all__ = ["HalfWeights"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class HalfWeights(Edit):
    """Every float32 parameter becomes one of 16 bits, and float32 again where it is used; buffers stay as they are.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 1 + 2**-8)
    >>> HalfWeights(format="bf16").apply(net)(torch.ones(1, 1)).item(), net.weight.dtype
    (1.0, torch.bfloat16)
    """

    format: Literal["bf16", "fp16"]
    """The 16-bit format."""

    def apply(self, module: nn.Module) -> nn.Module:
        if is_quantized(module):
            raise DomainError(
                "the network is quantized already", where="half_weights", hint="quantize it once, at the end"
            )
        require_none(module, where="half_weights")
        for parameter in module.parameters():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.to(_TYPES[self.format])
        return simulate(module, _Simulation)


class _Simulation(Simulation):
    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*_whole(args), **{name: _whole(value) for name, value in kwargs.items()})


def _whole(value: Any) -> Any:
    """The value with every 16-bit parameter in it in 32."""
    if isinstance(value, (tuple, list)):
        parts = [_whole(part) for part in cast("Sequence[Any]", value)]
        return tuple(parts) if isinstance(value, tuple) and type(value) is tuple else parts  # pyright: ignore[reportUnknownArgumentType]
    half = isinstance(value, Tensor) and value.dtype in _TYPES.values()
    if not half:
        return value
    stored = cast("Tensor", value)
    return (kept(stored) if torch.compiler.is_exporting() else stored).float()
