"""ExecuTorch with XNNPACK: ``model.pte``, for one sample; int8 kernels where a layer's input and result are quantized.

What XNNPACK has no kernel for runs in ExecuTorch's portable ones. On a device the C++ runtime needs no torch; in Python it does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import MissingExtra
from mapsto.nn.runtimes._converting import quiet, unable

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

    with quiet():
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
            raise unable(TITLE, error.__cause__ or error, "export.executorch") from error


def load(files: Mapping[str, Path], *, threads: int = 1, names: Sequence[str] = ()) -> Run:
    """The program in ExecuTorch's Python runtime; its pool of threads belongs to the whole process."""
    import numpy as np
    import torch

    with quiet():
        try:
            native: Any = importlib.import_module("executorch.extension.pybindings.portable_lib")
        except ModuleNotFoundError as error:
            raise _missing(error) from error
    native._unsafe_reset_threadpool(threads)
    try:
        program: Any = native._load_for_executorch(str(files[MODEL]))
        program.method_names()  # reads the file, which would wait until the first sample
    except RuntimeError as error:
        raise unable(TITLE, error.__cause__ or error, "executorch") from error

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(given)) for given in inputs]
        outputs = [program.forward([given[i : i + 1] for given in tensors])[0].numpy() for i in range(len(tensors[0]))]
        return np.concatenate(outputs)

    return run


def _missing(error: ModuleNotFoundError) -> MissingExtra:
    return MissingExtra(str(error.name), "edge", where="executorch")
