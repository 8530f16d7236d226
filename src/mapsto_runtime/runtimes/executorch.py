"""ExecuTorch's Python runtime, which needs torch; its C++ runtime on a device does not. One sample at a time."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import MissingExtra
from mapsto_runtime.runtimes._converting import quiet, unable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run
    from mapsto_runtime.signature import Signature

NAME: str = "executorch"
TITLE: str = "ExecuTorch"
MODEL: str = "model.pte"


def load(files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
    """The program in ExecuTorch's Python runtime; its pool of threads belongs to the whole process."""
    import numpy as np
    import torch

    with quiet():
        try:
            native: Any = importlib.import_module("executorch.extension.pybindings.portable_lib")
        except ModuleNotFoundError as error:
            raise missing(error) from error
    native._unsafe_reset_threadpool(threads)
    try:
        program: Any = native._load_for_executorch(str(files[MODEL]))
        program.method_names()  # reads the file, which would wait until the first sample
    except RuntimeError as error:
        raise unable(TITLE, error.__cause__ or error, "executorch") from error

    def once(sample: list[torch.Tensor]) -> NDArray[Any]:
        return program.forward(sample)[0].numpy()

    def run(*inputs: NDArray[Any]) -> NDArray[Any]:
        """Raises `DomainError` for what ExecuTorch finds only at work that it cannot compute."""
        tensors = [torch.from_numpy(np.ascontiguousarray(given)) for given in inputs]
        try:
            return np.concatenate([once([given[i : i + 1] for given in tensors]) for i in range(len(tensors[0]))])
        except RuntimeError as error:  # some operators, such as an int8 concatenation, fail only when they are run
            raise unable(TITLE, error.__cause__ or error, "executorch") from error

    return run


def missing(error: ModuleNotFoundError) -> MissingExtra:
    """The error for a part of ExecuTorch that is not installed."""
    return MissingExtra(str(error.name), "edge", where="executorch")
