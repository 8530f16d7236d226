"""Forward passes over many samples: evaluation mode, no gradient, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mapsto.kinds import Preprocessing
from mapsto.nn.kernels.malloc import keep_pages
from mapsto.nn.network.head import embed
from mapsto.nn.network.preprocess import prepare
from mapsto_runtime.preprocessing.texts import by_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["compact", "embeddings", "evaluating", "forward"]


def forward(
    module: nn.Module,
    inputs: NDArray[Any],
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Outputs for raw samples, shape (N, ...), on the CPU; `module` is moved to `device` and keeps its mode.

    >>> import numpy as np
    >>> flat = nn.Flatten()
    >>> forward(flat, np.zeros((3, 1, 2, 2), np.uint8), Preprocessing(channels=1, size=(2, 2))).shape
    torch.Size([3, 4])
    """
    return _batched(module, module, inputs, preprocessing, batch_size, device)


def embeddings(
    module: nn.Module,
    inputs: NDArray[Any],
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Embeddings of raw samples, shape (N, D), on the CPU."""
    return _batched(module, lambda batch: embed(module, batch), inputs, preprocessing, batch_size, device)


def _batched(
    module: nn.Module,
    call: Callable[[Tensor], Tensor],
    inputs: NDArray[Any],
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device | str,
) -> Tensor:
    keep_pages()
    with evaluating(compact(module.to(device))), torch.no_grad():
        if preprocessing.kind == "text" and len(inputs):
            return _of_texts(call, inputs, preprocessing, batch_size, device)
        parts = [
            call(prepare(inputs[start : start + batch_size], preprocessing, device=device)).float().cpu()
            for start in range(0, max(len(inputs), 1), batch_size)
        ]
    return torch.cat(parts)


def _of_texts(
    call: Callable[[Tensor], Tensor],
    ids: NDArray[Any],
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device | str,
) -> Tensor:
    """In batches of like length, in the order in which the texts are given."""

    def run(part: NDArray[Any]) -> NDArray[Any]:
        return call(prepare(part, preprocessing, device=device)).float().cpu().numpy()

    return torch.as_tensor(by_length(run, ids, preprocessing.padding, batch_size))


def compact(module: nn.Module) -> nn.Module:
    """`module` with channels-last weights where it convolves images: on CPUs about 1.6 times as fast, training included."""
    if any(isinstance(part, nn.Conv2d) for part in module.modules()):
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return module


class evaluating:  # noqa: N801
    """Evaluation mode for a block; the mode of every submodule comes back."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._modes: list[tuple[nn.Module, bool]] = []

    def __enter__(self) -> nn.Module:
        self._modes = [(part, part.training) for part in self._module.modules()]
        return self._module.eval()

    def __exit__(self, *error: object) -> None:
        for part, training in self._modes:
            part.training = training
