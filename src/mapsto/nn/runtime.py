"""Runtimes by name: a file of ``nn/runtimes`` lowers a network to a runtime's files and runs such files.

Each holds its names; ``MODEL``, the name of the file that is opened; ``lowered(network)``, the files' bytes, for which torch and the
runtime's converter are imported; and ``load(files, threads)``, a function from inputs to the first output, for which neither is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from mapsto.errors import SpecError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Network, Package

__all__ = ["Run", "Runtime", "find", "names", "run_network", "run_package"]

Run: TypeAlias = "Callable[..., NDArray[Any]]"
"""Arrays of the model's inputs, in order, each (N, ...) → its first output, (N, ...)."""


class Runtime(Protocol):
    """What a file of ``nn/runtimes`` holds."""

    NAME: str
    """As in a manifest."""
    TITLE: str
    """As people write it."""
    MODEL: str
    """Name of the file that is opened; what belongs to it lies beside it."""

    def lowered(self, network: Network) -> dict[str, bytes]:
        """The files of a network. Raises `MissingExtra`, and `DomainError` for what the runtime cannot compute."""
        ...

    def load(self, files: Mapping[str, Path], *, threads: int = 1, names: Sequence[str] = ()) -> Run:
        """The files, opened. Raises `MissingExtra`, and `DomainError` for what the runtime cannot compute.

        `names` of the inputs, in the order that they will be given in, are checked where the files hold names.
        """
        ...


@cache
def names() -> tuple[str, ...]:
    """Every runtime that mapsto knows, whether it is installed or not.

    >>> names()
    ('executorch', 'litert', 'onnxruntime', 'openvino')
    """
    folder = Path(__file__).parent / "runtimes"
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


def find(name: str) -> Runtime:
    """The runtime of that name. Raises `SpecError` with the nearest known name."""
    if name not in names():
        raise SpecError(f"unknown runtime '{name}'", hint=nearest(name, names()))
    return cast("Runtime", importlib.import_module(f"mapsto.nn.runtimes.{name}"))


def run_package(package: Package, *, threads: int = 1) -> Run:
    """A package, opened in its runtime."""
    return find(str(package.manifest().get("runtime", "onnxruntime"))).load(package.files, threads=threads)


def run_network(name: str, network: Network, folder: Path, *, threads: int = 1) -> Run:
    """A network lowered to a runtime's files in `folder` and opened there."""
    runtime = find(name)
    files: dict[str, Path] = {}
    for file, content in runtime.lowered(network).items():
        files[file] = folder / file
        files[file].write_bytes(content)
    return runtime.load(files, threads=threads)
