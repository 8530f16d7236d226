"""What the layers of a network are given: second moments of their inputs over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.errors import DataError
from mapsto.nn.network.layer_calls import run_watched

__all__ = ["input_moments", "input_norms"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def input_norms(module: nn.Module, paths: Iterable[str], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Path of a linear layer or convolution → √Σ x² of what each weight is multiplied with, over samples and positions.

    Of a shape that goes with the weight's, float64. Raises `DataError` where it is not finite.

    >>> net = nn.Sequential(nn.Conv2d(1, 1, (1, 2)))
    >>> input_norms(net, ["0"], [torch.tensor([[[[3.0, 4.0, 0.0]]]])])["0"].tolist()
    [[[[5.0, 4.0]]]]
    """
    layers = {path: module.get_submodule(path) for path in paths}
    sums: dict[str, Tensor] = {}

    def add(path: str, given: tuple[Any, ...], _: Any) -> None:
        layer, inputs = layers[path], given[0]
        convolves = isinstance(layer, _CONVOLUTIONS)
        squares = _convolved(layer, inputs) if convolves else _rows(layer, inputs).square().sum(0)
        sums[path] = sums.get(path, 0) + squares.double()

    run_watched(module, layers, batches, add)
    return {path: _finite(found, path).sqrt() for path, found in sums.items()}


def input_moments(module: nn.Module, paths: Iterable[str], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Path of a linear layer or convolution → mean of x xᵀ over samples and positions, shape (inputs, inputs), float64.

    Raises `DataError` where it is not finite.

    >>> net = nn.Sequential(nn.Linear(2, 1))
    >>> input_moments(net, ["0"], [torch.tensor([[1.0, 2.0], [1.0, 0.0]])])["0"].tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    layers = {path: module.get_submodule(path) for path in paths}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(path: str, given: tuple[Any, ...], _: Any) -> None:
        rows = _rows(layers[path], given[0])
        sums[path] = sums.get(path, 0) + (rows.T @ rows).double()
        counts[path] = counts.get(path, 0) + len(rows)

    run_watched(module, layers, batches, add)
    return {path: _finite(found, path) / counts[path] for path, found in sums.items()}


def _rows(layer: nn.Module, given: Tensor) -> Tensor:
    """The inputs at every position, shape (positions, inputs)."""
    last = given.movedim(1, -1) if isinstance(layer, _CONVOLUTIONS) else given
    return last.reshape(-1, last.shape[-1])


_CONVOLVE: Mapping[int, Callable[..., Tensor]] = {
    3: functional.conv1d,
    4: functional.conv2d,
    5: functional.conv3d,
}


def _convolved(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, given: Tensor) -> Tensor:
    """Σ x² at each place of the kernel, of the weight's shape: the gradient of a depthwise convolution of x² with ones."""
    squares, padding = given.square(), cast("Any", layer.padding)
    if layer.padding_mode != "zeros":
        squares = functional.pad(squares, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = 0
    inputs, groups = layer.in_channels, layer.groups
    with torch.enable_grad():
        ones = torch.ones(inputs, 1, *layer.kernel_size, device=given.device, dtype=given.dtype, requires_grad=True)
        convolve = _CONVOLVE[ones.ndim]
        total = convolve(squares, ones, None, layer.stride, padding, layer.dilation, inputs).sum()
        (sums,) = torch.autograd.grad(total, ones)
    grouped = sums.reshape(groups, inputs // groups, *layer.kernel_size)
    return grouped.repeat_interleave(layer.out_channels // groups, 0)


def _finite(found: Tensor, path: str) -> Tensor:
    if not bool(found.isfinite().all()):
        raise DataError("what this layer is given is not finite", where=path, hint="look for NaN in the data")
    return found
