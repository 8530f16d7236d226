"""A network of which one output is taken: of several in a tuple, a dict or a `ModelOutput`, the one that is named.

Names of tensors are those of the network itself: its class gets a subclass whose forward pass takes the output.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Factory

__all__ = ["one_output", "taken", "taking"]


def one_output(factory: str, *, output: str | int, arguments: dict[str, Any] | None = None) -> nn.Module:
    """The module of `factory`, ``package.module:callable`` with JSON arguments, giving `output` alone: a name, or a place from 0.

    Raises `TrustError` for a factory that is not trusted.
    """
    return taking(Factory(name=factory, arguments=arguments or {}).build(), output)


def taking(module: nn.Module, output: str | int) -> nn.Module:
    """`module` itself, giving one of its outputs from now on."""
    own: Any = type(module)

    def forward(self: Any, x: Tensor) -> Tensor:
        return taken(own.forward(self, x), output)

    module.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})
    return module


def taken(outputs: Any, output: str | int) -> Tensor:
    """One of several outputs. Raises `DomainError` where there is no such tensor."""
    try:
        found: Any = outputs[output]
    except (KeyError, IndexError, TypeError):
        found = None
    if not isinstance(found, Tensor):
        raise DomainError(f"it has no tensor {output!r} among its outputs", hint="name one that it gives")
    return found
