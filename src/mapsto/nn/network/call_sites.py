"""Places in a forward pass: (module path, function, nth call), numbered while the network runs.

A torch function mode sees every call, so that a residual add or a pooling inside a `forward` has a place too, and the places
are the same in eager mode and under `torch.export`. A call that gives several tensors (`chunk`, `topk`, an LSTM) has a place for
each: the first under the function's own name, the others as ``chunk[1]``, ``chunk[2]``.
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
    from collections.abc import Iterator, Sequence

__all__ = ["INPUT", "Site", "SiteCall", "SiteMode", "Trace", "results", "trace", "with_results"]

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

    @property
    def operation(self) -> str:
        """The function's name without the number of a result.

        >>> Site("", "chunk[1]").operation
        'chunk'
        """
        return self.function.partition("[")[0]

    def __str__(self) -> str:
        return f"{self.path or 'the network'}: {self.function} {self.call}"


INPUT = Site("", "input", 0)
"""The place of the network's first input."""


def results(site: Site, result: Any) -> Iterator[tuple[Site, Tensor]]:
    """Each tensor that a call gave, with its place; those of a tuple or list are numbered as they stand in it.

    >>> [str(place) for place, _ in results(Site("", "chunk"), torch.ones(4).chunk(2))]
    ['the network: chunk 0', 'the network: chunk[1] 0']
    """
    if isinstance(result, Tensor):
        yield site, result
    elif isinstance(result, (tuple, list)):
        for number, part in enumerate(cast("Sequence[Any]", result)):
            if isinstance(part, Tensor):
                yield (site._replace(function=f"{site.function}[{number}]") if number else site), part


def with_results(site: Site, result: Any, change: Callable[[Site, Tensor], Tensor]) -> Any:
    """What a call gave, each of its tensors changed."""
    changed = {id(tensor): change(place, tensor) for place, tensor in results(site, result)}
    if isinstance(result, Tensor):
        return changed[id(result)]
    if not isinstance(result, (tuple, list)):
        return result
    parts = [changed.get(id(part), part) for part in cast("Sequence[Any]", result)]
    kind: Any = type(cast("Any", result))
    return kind(*parts) if hasattr(kind, "_make") else kind(parts)


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
class SiteCall:
    """One result of a call of a trace."""

    site: Site
    sources: tuple[Site, ...]
    """Where its tensor arguments that depend on the input come from; `INPUT` for the input itself."""
    parameters: tuple[str, ...]
    """Names of the parameters and buffers among its arguments."""
    floats: bool = True
    """Whether the result holds floats: whole numbers and truth values are followed, but there is nothing to round."""


@dataclass(frozen=True)
class Trace:
    """A forward pass as a graph of calls, in the order they were made."""

    calls: tuple[SiteCall, ...]
    outputs: tuple[Site, ...]
    floats: bool = True
    """Whether the input holds floats."""

    def consumers(self) -> dict[Site, list[SiteCall]]:
        """Site → the calls that take its result."""
        found: dict[Site, list[SiteCall]] = {}
        for call in self.calls:
            for source in call.sources:
                found.setdefault(source, []).append(call)
        return found


def trace(module: nn.Module, example: Tensor) -> Trace:
    """The calls that `module(example)` makes and that depend on `example`, shape (N, ...)."""
    tracer = _Tracer(module, example)
    with torch.no_grad(), tracer:
        output: Any = module(example)
    outputs = tuple(tracer.origin[id(tensor)] for tensor in _tensors((output,)) if id(tensor) in tracer.origin)
    taken = {source for call in tracer.calls for source in call.sources} | set(outputs)
    calls = (call for call in tracer.calls if call.site.function == call.site.operation or call.site in taken)
    return Trace(calls=tuple(calls), outputs=outputs, floats=example.is_floating_point())


class _Tracer(SiteMode):
    def __init__(self, root: nn.Module, example: Tensor) -> None:
        super().__init__(root)
        self.calls: list[SiteCall] = []
        self.origin: dict[int, Site] = {id(example): INPUT}
        self._names = {id(tensor): name for name, tensor in (*root.named_parameters(), *root.named_buffers())}
        self._alive: list[Any] = [example]  # an id may recur once its tensor is freed

    def visit(self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = list(_tensors((*args, *kwargs.values())))
        sources = tuple(self.origin[id(tensor)] for tensor in tensors if id(tensor) in self.origin)
        result = function(*args, **kwargs)
        names = tuple(self._names[id(tensor)] for tensor in tensors if id(tensor) in self._names)
        for place, given in results(site, result) if sources else ():
            unchanged = any(given is tensor for tensor in tensors) and site.function in ("dropout", "contiguous", "to")
            if not unchanged:
                self.calls.append(SiteCall(place, sources, names, floats=given.is_floating_point()))
                self.origin[id(given)] = place
        self._alive.append(result)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among values, in containers too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
