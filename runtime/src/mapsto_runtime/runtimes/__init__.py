"""Runtimes by name: each file opens the files of a package in one, and neither torch nor a converter is needed for it.

Each holds ``NAME``, as in a manifest; ``TITLE``, as people write it; ``MODEL``, the name of the file that is opened; and
``load(files, threads, signature)``, a function from inputs to the first output. ExecuTorch's Python runtime needs torch itself,
and what runs in mapsto needs mapsto.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from mapsto_runtime.errors import SpecError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.signature import Signature

__all__ = ["Run", "Runtime", "find", "names"]

Run: TypeAlias = "Callable[..., NDArray[Any]]"
"""Arrays of the model's inputs, in order, each (N, ...) → its first output, (N, ...)."""


class Runtime(Protocol):
    """What a file of ``runtimes`` holds."""

    NAME: str
    """As in a manifest."""
    TITLE: str
    """As people write it."""
    MODEL: str
    """Name of the file that is opened; what belongs to it lies beside it."""

    def load(self, files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
        """The files, opened. Raises `MissingExtra`, and `DomainError` for what the runtime cannot compute.

        What the files say of their inputs and outputs is compared with `signature`, where they do. Raises `StoreError` for a misfit.
        """
        ...


@cache
def names() -> tuple[str, ...]:
    """Every runtime that is known, whether it is installed or not.

    >>> names()
    ('executorch', 'litert', 'mapsto', 'onnxruntime', 'openvino')
    """
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))


def find(name: str) -> Runtime:
    """The runtime of that name. Raises `SpecError` with the nearest known name."""
    if name not in names():
        raise SpecError(f"unknown runtime '{name}'", hint=nearest(name, names()))
    return cast("Runtime", importlib.import_module(f"{__name__}.{name}"))
