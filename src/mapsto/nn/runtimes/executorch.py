"""ExecuTorch with XNNPACK: ``model.pte``, for one sample; int8 kernels where a layer's input and result are quantized.

What XNNPACK has no kernel for runs in ExecuTorch's portable ones. On a device the C++ runtime needs no torch; in Python it does.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import DomainError, MissingExtra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Network
    from mapsto.nn.runtime import Run

NAME: str = "executorch"
TITLE: str = "ExecuTorch"
MODEL: str = "model.pte"


def lowered(network: Network) -> dict[str, bytes]:
    """The program. Raises `DomainError` that names the operator which ExecuTorch lacks."""
    import torch

    from mapsto.nn.decomposed import decomposed

    with _quiet():
        try:
            xnnpack: Any = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
            exir: Any = importlib.import_module("executorch.exir")
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        graph, inputs = decomposed(network, codes=True, where="export.executorch")
        try:
            program: Any = torch.export.export(graph, inputs)
            edge: Any = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
            return {MODEL: bytes(edge.to_executorch().buffer)}
        except Exception as error:  # its passes raise what they like
            raise _unable(error, "export.executorch") from error


def load(files: Mapping[str, Path], *, threads: int = 1, names: Sequence[str] = ()) -> Run:
    """The program in ExecuTorch's Python runtime; its pool of threads belongs to the whole process."""
    import numpy as np
    import torch

    with _quiet():
        try:
            native: Any = importlib.import_module("executorch.extension.pybindings.portable_lib")
        except ModuleNotFoundError as error:
            raise _missing(error) from error
    native._unsafe_reset_threadpool(threads)
    try:
        program: Any = native._load_for_executorch(str(files[MODEL]))
        program.method_names()  # reads the file, which would wait until the first sample
    except RuntimeError as error:
        raise _unable(error, "executorch") from error

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(given)) for given in inputs]
        outputs = [program.forward([given[i : i + 1] for given in tensors])[0].numpy() for i in range(len(tensors[0]))]
        return np.concatenate(outputs)

    return run


def _missing(error: ModuleNotFoundError) -> MissingExtra:
    return MissingExtra(str(error.name), "edge", where="executorch")


def _unable(error: Exception, where: str) -> DomainError:
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    return DomainError(
        f"ExecuTorch cannot run this network: {lines[0] if lines else type(error).__name__}",
        where=where,
        hint="leave the layer with that operator in float (skip), quantize in another way, or use export.onnx",
    )


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without notices about kernels of other hardware and about deprecated calls of its own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
