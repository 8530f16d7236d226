"""Places in a forward pass: (module path, function, nth call), numbered while the network runs.

A torch function mode sees every call, so that a residual add or a pooling inside a `forward` has a place too, and the places
are the same in eager mode and under `torch.export`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INPUT", "Call", "Site", "SiteMode", "Trace", "trace"]

_ALIASES = {
    "iadd": "add",
    "radd": "add",
    "imul": "mul",
    "rmul": "mul",
    "isub": "sub",
    "itruediv": "div",
    "truediv": "div",
}
_SILENT = frozenset({"get", "set", "size", "dim", "detach", "is_floating_point", "requires_grad", "numel", "stride"})


class Site(NamedTuple):
    """One call: the path of the module whose forward makes it, the function's name, and its number there from 0."""

    path: str
    function: str
    call: int = 0

    def __str__(self) -> str:
        return f"{self.path or 'the network'}: {self.function} {self.call}"


INPUT = Site("", "input", 0)
"""The place of the network's first input."""


def function_name(function: Callable[..., Any]) -> str:
    """One name for a function, its in-place form, its method and its operator.

    >>> function_name(torch.relu_), function_name(torch.Tensor.__iadd__), function_name(torch.nn.functional.max_pool2d)
    ('relu', 'add', 'max_pool2d')
    """
    name = getattr(function, "__name__", str(function)).strip("_").removeprefix("boolean_dispatch")
    name = {"fn": "max_pool2d"}.get(name, name)
    return _ALIASES.get(name, name)


class SiteMode(TorchFunctionMode):
    """Calls `visit` for each torch function that gives a tensor while `root` runs.

    While it is active the path of the running module is known from forward hooks; another module's calls count as its
    caller's.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = root
        self._paths = {id(module): name for name, module in root.named_modules()}
        self._stack = [""]
        self._counts: Counter[tuple[str, str]] = Counter()
        self._handles: list[Any] = []

    @property
    def path(self) -> str:
        """The path of the module that runs now."""
        return self._stack[-1]

    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the call and give its result."""
        return function(*args, **kwargs)

    def __enter__(self) -> SiteMode:
        self._handles = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def _enter_module(self, module: nn.Module, inputs: Any) -> None:
        if id(module) in self._paths and module is not self.root:
            self._stack.append(self._paths[id(module)])

    def _leave_module(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) in self._paths and module is not self.root:
            self._stack.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function_name(func)
        if name in _SILENT:
            return func(*args, **(kwargs or {}))
        site = Site(self.path, name, self._counts[self.path, name])
        self._counts[self.path, name] += 1
        return self.visit(site, func, args, kwargs or {})


@dataclass(frozen=True)
class Call:
    """One call of a trace."""

    site: Site
    sources: tuple[Site, ...]
    """Where its tensor arguments that depend on the input come from; `INPUT` for the input itself."""
    parameters: tuple[str, ...]
    """Names of the parameters and buffers among its arguments."""


@dataclass(frozen=True)
class Trace:
    """A forward pass as a graph of calls, in the order they were made."""

    calls: tuple[Call, ...]
    outputs: tuple[Site, ...]

    def consumers(self) -> dict[Site, list[Call]]:
        """Site → the calls that take its result."""
        found: dict[Site, list[Call]] = {}
        for call in self.calls:
            for source in call.sources:
                found.setdefault(source, []).append(call)
        return found


def trace(module: nn.Module, example: Tensor) -> Trace:
    """The calls that `module(example)` makes and that depend on `example`, shape (N, ...)."""
    tracer = _Tracer(module, example)
    with torch.no_grad(), tracer:
        output: Any = module(example)
    outputs = cast("tuple[Any, ...]", output if isinstance(output, (tuple, list)) else (output,))
    return Trace(
        calls=tuple(tracer.calls),
        outputs=tuple(tracer.origin[id(tensor)] for tensor in outputs if id(tensor) in tracer.origin),
    )


class _Tracer(SiteMode):
    def __init__(self, root: nn.Module, example: Tensor) -> None:
        super().__init__(root)
        self.calls: list[Call] = []
        self.origin: dict[int, Site] = {id(example): INPUT}
        self._names = {id(tensor): name for name, tensor in (*root.named_parameters(), *root.named_buffers())}
        self._alive: list[Any] = [example]  # an id may recur once its tensor is freed

    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = list(_tensors((*args, *kwargs.values())))
        sources = tuple(self.origin[id(tensor)] for tensor in tensors if id(tensor) in self.origin)
        result = function(*args, **kwargs)
        if isinstance(result, Tensor) and sources and result.is_floating_point():
            unchanged = any(result is tensor for tensor in tensors) and site.function in ("dropout", "contiguous", "to")
            if not unchanged:
                names = tuple(self._names[id(tensor)] for tensor in tensors if id(tensor) in self._names)
                self.calls.append(Call(site, sources, names))
                self.origin[id(result)] = site
            self._alive.append(result)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
