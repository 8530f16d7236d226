"""Attach quantizers: from here on the network computes exactly what integer arithmetic will compute, and can still train.

``q(x) = (clamp(round(x / s) + z, lowest, highest) − z) · s`` with the gradient passed straight through within the range (Jacob
et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit, Frozen
from mapsto.nn.edits._adapted_layer import require_none
from mapsto.nn.network.call_sites import INPUT, Site, SiteMode, with_results

__all__ = ["Quantizers"]


class Quantizer(Frozen):
    """One quantizer: where it stands and how it maps floats to codes."""

    path: str = ""
    """Path of the module whose forward makes the call; for a weight the path of the module that owns it."""
    function: str
    """The called function's name as in `mapsto.nn.network.call_sites`; for a weight the parameter's own name."""
    call: int = Field(default=0, ge=0)
    """Number of the call of that function in that module's forward, from 0."""
    weight: bool = False
    """Whether it stands on a parameter (wherever that is used) instead of on a call's result."""
    scheme: Literal["symmetric", "asymmetric"] = "asymmetric"
    """Symmetric: every zero point is the code 0."""
    bits: int = Field(default=8, ge=2, le=32)
    """Bits a code: up to 8, or 32 for a bias."""
    scale: tuple[float, ...] = Field(min_length=1)
    """Size of one step, in the tensor's own unit: one number, or one for each index of `axis`."""
    zero_point: tuple[int, ...] = Field(min_length=1)
    """The code of 0.0; as many as scales."""
    axis: int | None = Field(default=None, ge=0)
    """The dimension that the scales run along; None for one scale for the whole tensor."""
    quant_min: int
    """The lowest code."""
    quant_max: int
    """The highest code."""

    def __post_init__(self) -> None:
        if (
            min(self.scale) <= 0
            or len(self.scale) != len(self.zero_point)
            or (self.axis is None and len(self.scale) > 1)
        ):
            raise DomainError(
                f"{len(self.scale)} scales from {min(self.scale)} up and {len(self.zero_point)} zero points, axis {self.axis}",
                where=str(self.site),
                hint="scales are positive, there is a zero point for each, and several of them need an axis",
            )

    @property
    def site(self) -> Site:
        """Its place as (path, function, call)."""
        return Site(self.path, self.function, self.call)

    @property
    def container(self) -> tuple[int, int]:
        """The lowest and highest code of the integer type that holds the codes."""
        return (0, 255) if self.quant_min >= 0 else (-128, 127)


class Quantizers(Edit):
    """Quantizers on weights (applied where they are used; the stored tensors stay float) and on results of calls.

    The tensors' names do not change. Calling the module, or its ``embed``, computes with quantized values.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    >>> _ = nn.init.constant_(net[0].weight, 0.4)
    >>> step = Quantizer(path="0", function="linear", scale=(0.25,), zero_point=(0,), quant_min=0, quant_max=255)
    >>> Quantizers(quantizers=(step,)).apply(net)(torch.ones(1, 2)).item()
    0.75
    """

    quantizers: tuple[Quantizer, ...] = Field(min_length=1)
    """Every quantizer; at most one at a place."""

    def apply(self, module: nn.Module) -> nn.Module:
        if is_quantized(module):
            raise DomainError(
                "the network is quantized already", where="quantizers", hint="quantize it once, at the end"
            )
        require_none(module, where="quantizers")
        for index, quantizer in enumerate(self.quantizers):
            if quantizer.weight:
                attach_scales(module, index, quantizer)
        object.__setattr__(module, "mapsto_quantizers", self.quantizers)
        return simulate(module, _Simulation)


class _Simulated:
    """Marks a module that computes with quantized values."""


KEPT = "mapsto::Kept"
"""An operator that exporters turn into an identity: what it takes is not folded into a constant before it is written."""


def kept(tensor: Tensor) -> Tensor:
    """A stored tensor, in a file as it is: the small ones too."""
    return torch.onnx.ops.symbolic(KEPT, (tensor,), dtype=tensor.dtype, shape=tensor.shape, version=1)


class Simulation(SiteMode):
    """What happens while a quantized module runs; each edit that quantizes has one of its own."""

    def quantized_input(self, value: Any) -> Any:
        """What the network gets in place of its first input."""
        return value

    @staticmethod
    def bake(module: nn.Module) -> None:
        """Make a module ready for export; its output stays the same."""


def simulate(module: nn.Module, simulation: type[Simulation]) -> nn.Module:
    """Let `module` run within a simulation from here on: its ``forward`` and, where it has one, its ``embed``."""
    base: Any = type(module)
    methods = {
        name: _simulating(getattr(base, name)) for name in ("forward", "embed") if callable(getattr(base, name, None))
    }
    attributes = {"__module__": base.__module__, "__doc__": base.__doc__, **methods}
    cast("Any", module).__class__ = type(base.__name__, (_Simulated, base), attributes)
    object.__setattr__(module, "mapsto_simulation", simulation)
    return module


def is_quantized(module: nn.Module) -> bool:
    """Whether quantizers are attached to a module."""
    return isinstance(module, _Simulated)


def has_quantized_part(module: nn.Module) -> bool:
    """Whether quantizers are attached to a module or to a part of it, as to a member of an ensemble."""
    return any(map(is_quantized, module.modules()))


def quantizers_of(module: nn.Module) -> tuple[Quantizer, ...]:
    """The quantizers attached to a module."""
    return getattr(module, "mapsto_quantizers", ())


def quantized_weights(module: nn.Module) -> Iterator[tuple[int, Quantizer, Tensor]]:
    """The quantizers on parameters: number, quantizer, parameter. A layer put in place of a quantized one has none."""
    for index, quantizer in enumerate(quantizers_of(module)):
        if quantizer.weight:
            owner = module.get_submodule(quantizer.path)
            if quantizer.function in getattr(owner, "mapsto_quantized", ()):
                yield index, quantizer, getattr(owner, quantizer.function)


def bake_weights(module: nn.Module) -> None:
    """Round the stored weights of a quantized module to what their quantizers make of them; its output stays the same.

    So it is done in quantized modules within it, as in an ensemble.
    """
    for part in module.modules():
        simulation: type[Simulation] | None = getattr(part, "mapsto_simulation", None)
        if simulation is not None:
            simulation.bake(part)


def learn_steps(module: nn.Module, follows: Mapping[int, int]) -> None:
    """Make every step but a bias's a parameter that training moves; zero points stay as they are.

    `follows`: number of a quantizer → number of the one whose step it shares.
    """
    for index, quantizer in enumerate(quantizers_of(module)):
        if quantizer.bits <= 8 and index not in follows:
            device = next(module.parameters()).device
            module.register_parameter(_step_name(index), nn.Parameter(torch.tensor(quantizer.scale, device=device)))
    for index, source in follows.items():
        module.register_parameter(_step_name(index), module._parameters[_step_name(source)])


def learned_steps(module: nn.Module) -> dict[int, tuple[float, ...]]:
    """Number of a quantizer → its scales as training has left them."""
    steps = {index: module._parameters.get(_step_name(index)) for index in range(len(quantizers_of(module)))}
    return {index: tuple(_positive(step).tolist()) for index, step in steps.items() if step is not None}


def is_step(name: str) -> bool:
    """Whether a tensor's name is that of a step which `learn_steps` made."""
    return name.startswith("quantizer_") and name.endswith("_step")


def attach_scales(module: nn.Module, index: int, quantizer: Quantizer) -> None:
    """Mark a weight as quantized and give the module its scales. Raises `DomainError` where the quantizer does not fit."""
    try:
        owner = module.get_submodule(quantizer.path)
        weight = owner.get_parameter(quantizer.function)
    except AttributeError as error:
        raise DomainError(
            str(error), where=str(quantizer.site), hint="edits replay in the order they were made"
        ) from error
    if quantizer.axis is not None and weight.shape[quantizer.axis] != len(quantizer.scale):
        raise DomainError(
            f"{len(quantizer.scale)} scales for a weight of shape {tuple(weight.shape)} along dimension {quantizer.axis}",
            where=str(quantizer.site),
            hint="prune before quantizing",
        )
    marks: tuple[str, ...] = getattr(owner, "mapsto_quantized", ())
    object.__setattr__(owner, "mapsto_quantized", (*marks, quantizer.function))
    device = weight.device
    module.register_buffer(_scale_name(index), torch.tensor(quantizer.scale, device=device), persistent=False)
    zeros = torch.tensor(quantizer.zero_point, dtype=torch.int32, device=device)
    module.register_buffer(_zero_name(index), zeros, persistent=False)


def scales_of(module: nn.Module, index: int) -> tuple[Tensor, Tensor]:
    """Scales and zero points of a quantizer on a weight, each of shape (outputs,)."""
    return getattr(module, _scale_name(index)), getattr(module, _zero_name(index))


def _scale_name(index: int) -> str:
    return f"quantizer_{index}_scale"


def _zero_name(index: int) -> str:
    return f"quantizer_{index}_zero_point"


def _step_name(index: int) -> str:
    return f"quantizer_{index}_step"


def _positive(step: Tensor) -> Tensor:
    """A step that training cannot push through zero."""
    return step.abs().clamp_min(torch.finfo(torch.float32).tiny)


def _simulating(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` with quantizers at work, unless they are at work already (``forward`` calls ``embed``)."""

    @wraps(method)
    def simulated(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if _running.get() is self:
            return method(self, *args, **kwargs)
        simulation: Simulation = cast("Any", self).mapsto_simulation(self)
        if args:
            args = (simulation.quantized_input(args[0]), *args[1:])
        token = _running.set(self)
        try:
            with simulation:
                return method(self, *args, **kwargs)
        finally:
            _running.reset(token)

    return simulated


_running: ContextVar[nn.Module | None] = ContextVar("running", default=None)


class _Simulation(Simulation):
    """Quantizes results of calls by site and weights by identity."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__(root)
        self._quantizers = quantizers_of(root)
        places = enumerate(self._quantizers)
        self._sites = {quantizer.site: index for index, quantizer in places if not quantizer.weight}
        self._weights = {id(weight): index for index, _, weight in quantized_weights(root)}

    @staticmethod
    def bake(module: nn.Module) -> None:
        simulation = _Simulation(module)
        with torch.no_grad():
            for index, _, weight in list(quantized_weights(module)):
                weight.copy_(simulation.quantized(index, weight))

    def quantized_input(self, value: Any) -> Any:
        index = self._sites.get(INPUT)
        return value if index is None else self.quantized(index, value)

    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args = tuple(self._used(value) for value in args)
        result = function(*args, **{name: self._used(value) for name, value in kwargs.items()})
        return with_results(site, result, self._rounded)

    def _rounded(self, site: Site, value: Tensor) -> Tensor:
        index = self._sites.get(site)
        return value if index is None else self.quantized(index, value)

    def _used(self, value: Any) -> Any:
        index = self._weights.get(id(value)) if isinstance(value, Tensor) else None
        return value if index is None else self.quantized(index, value)

    def quantized(self, index: int, value: Tensor) -> Tensor:
        quantizer = self._quantizers[index]
        lowest, highest = quantizer.quant_min, quantizer.quant_max
        step = self.root._parameters.get(_step_name(index))
        if step is not None:
            return _learning(value, step, quantizer)
        if torch.compiler.is_exporting() and quantizer.bits > 8:
            return value  # a file's bias is in the accumulator's unit by itself
        if torch.compiler.is_exporting() and (lowest, highest) != quantizer.container:
            value = value if quantizer.weight else _clamped(quantizer, value)  # weights are baked before
            lowest, highest = quantizer.container
        if quantizer.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                value, quantizer.scale[0], quantizer.zero_point[0], lowest, highest
            )
        scale, zeros = scales_of(self.root, index)
        return torch.fake_quantize_per_channel_affine(value, scale, zeros, quantizer.axis, lowest, highest)


def _clamped(quantizer: Quantizer, value: Tensor) -> Tensor:
    """Within the codes' range: a file knows whole integer types only, so a narrower range is a clamp before them."""
    scale, zero = quantizer.scale[0], quantizer.zero_point[0]
    return torch.clamp(value, (quantizer.quant_min - zero) * scale, (quantizer.quant_max - zero) * scale)


def _learning(value: Tensor, step: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantized, with a gradient for the step too, divided by √(values of a step × highest code) (Esser et al. 2020)."""
    native: Any = torch
    lowest, highest = quantizer.quant_min, quantizer.quant_max
    zeros = torch.tensor(quantizer.zero_point, dtype=torch.float32, device=value.device)
    factor = (value.numel() / len(zeros) * max(highest, 1)) ** -0.5
    if quantizer.axis is None:
        return native._fake_quantize_learnable_per_tensor_affine(value, _positive(step), zeros, lowest, highest, factor)
    return native._fake_quantize_learnable_per_channel_affine(
        value, _positive(step), zeros, quantizer.axis, lowest, highest, factor
    )
