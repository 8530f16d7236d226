"""The compiled kernels: loaded once, checked against the formulas as PyTorch operations; and which tensors may be given to them.

They are C++ (``native/csrc``), compiled once for each machine into the cache folder.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mapsto.errors import DomainError
from mapsto.native.compilation import SOURCES, give_up, library, missing
from mapsto.nn.kernels.norm_pool_passes import PLAIN, NormPoolKernels

__all__ = ["compiled_kernels", "is_supported", "is_transformed", "loaded_kernels"]


def is_supported(x: Tensor) -> bool:
    """Whether a tensor may go through the kernels: on the CPU, in float32 or float64, and outside of `torch.func`."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not is_transformed()


def is_transformed() -> bool:
    """Whether `torch.func` is at work, through which such functions do not pass."""
    return bool(torch._C._are_functorch_transforms_active())  # pyright: ignore[reportAttributeAccessIssue]


_lock = threading.Lock()
_loaded: list[NormPoolKernels | None] = []


def compiled_kernels() -> bool:
    """Whether the compiled kernels are there; the first call on a machine compiles them, which takes about half a minute."""
    return loaded_kernels() is not None


def loaded_kernels() -> NormPoolKernels | None:
    """The compiled passes of batch norm, ReLU and pooling; None without a compiler. Raises `DomainError` where they fail."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(_load() if missing() is None else None)
    return _loaded[0]


def _load() -> NormPoolKernels:
    place = library(SOURCES)
    try:
        return _checked(place)
    except Exception as error:  # whatever a loader does: the step's key says that they are there
        give_up(place, f"they were compiled, but cannot be used: {error}")
        raise DomainError(
            f"the compiled kernels cannot be used: {error}",
            where=str(place),
            hint="run the same command again: it goes on without them, and its keys say so",
        ) from error


def _checked(place: Path) -> NormPoolKernels:
    torch.ops.load_library(str(place))
    kernels = cast("NormPoolKernels", torch.ops.mapsto_norm_pool)
    x = torch.arange(150.0).mul(0.7).sin().view(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 0.0, -0.1])
    expected, found = (which.forward(x, weight, bias, 1e-5, 2)[0] for which in (PLAIN, kernels))
    if not torch.allclose(expected, found, atol=1e-5):
        raise RuntimeError(f"{place} computes wrong values")
    return kernels
