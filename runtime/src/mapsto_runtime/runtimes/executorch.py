"""ExecuTorch's Python runtime, which needs torch; its C++ runtime on a device does not. One sample at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.runtimes._converting import optional, quiet, unable

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from mapsto_runtime.runtimes import Run
    from mapsto_runtime.signature import Signature

NAME: str = "executorch"
TITLE: str = "ExecuTorch"
MODEL: str = "model.pte"


def load(files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
    """The program in ExecuTorch's Python runtime; its pool of threads belongs to the whole process."""
    import numpy as np

    with quiet():
        tensor_of = optional("torch", "executorch", where="executorch").from_numpy
        native = optional("executorch.extension.pybindings.portable_lib", "executorch", where="executorch")
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
        tensors = [tensor_of(np.ascontiguousarray(given)) for given in inputs]
        try:
            return np.concatenate([once([given[i : i + 1] for given in tensors]) for i in range(len(tensors[0]))])
        except RuntimeError as error:  # some operators fail only when they are run
            raise unable(TITLE, error.__cause__ or error, "executorch") from error

    return run
