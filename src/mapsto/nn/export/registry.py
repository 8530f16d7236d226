"""Runtimes by name: a file of ``nn/export/runtimes`` lowers a network to a runtime's files, for which torch and its converter are imported.

The file of the same name in `mapsto_runtime.runtimes` runs such files; its ``NAME``, ``TITLE``, ``MODEL`` and ``load`` are here too.
Packages of mapsto itself hold no network.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

from mapsto.errors import SpecError, nearest
from mapsto_runtime import runtimes
from mapsto_runtime.runtimes import Run

if TYPE_CHECKING:
    from mapsto.kinds import Network, Package

__all__ = ["Run", "Runtime", "RuntimeName", "find", "names", "run_network", "run_package"]

RuntimeName: TypeAlias = Literal["onnxruntime", "openvino", "litert", "executorch"]
"""What a field that chooses a runtime may hold; a test holds that these are the files of ``runtimes``."""


class Runtime(runtimes.Runtime, Protocol):
    """What a file of ``nn/export/runtimes`` holds."""

    def lowered(self, network: Network) -> dict[str, bytes]:
        """The files of a network. Raises `MissingExtra`, and `DomainError` for what the runtime cannot compute."""
        ...


@cache
def names() -> tuple[str, ...]:
    """Every runtime that a network can be lowered to, whether it is installed or not."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "runtimes").glob("[!_]*.py")))


def find(name: str) -> Runtime:
    """The runtime of that name. Raises `SpecError` with the nearest known name."""
    if name not in names():
        raise SpecError(f"unknown runtime '{name}'", hint=nearest(name, names()))
    return cast("Runtime", importlib.import_module(f"mapsto.nn.export.runtimes.{name}"))


def run_package(package: Package, *, threads: int = 1) -> Run:
    """A package, opened in its runtime."""
    return runtimes.find(str(package.manifest().get("runtime", "onnxruntime"))).load(package.files, threads=threads)


def run_network(name: str, network: Network, folder: Path, *, threads: int = 1) -> Run:
    """A network lowered to a runtime's files in `folder` and opened there."""
    runtime = find(name)
    files: dict[str, Path] = {}
    for file, content in runtime.lowered(network).items():
        files[file] = folder / file
        files[file].write_bytes(content)
    return runtime.load(files, threads=threads)
