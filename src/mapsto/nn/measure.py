"""How large a module is: parameters, multiply-accumulates and bytes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Layer", "count_macs", "count_parameters", "layer_table", "state_bytes"]


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers; tied weights count once.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products for one sample.

    Half of torch's floating-point operations: additions of biases, normalisation, activations and pooling are not counted, as is the
    custom in papers on pruning.

    Parameters
    ----------
    example
        A batch, shape (N, ...); the count is divided by N.

    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 4, 4))
    3456
    """
    with _evaluating(module), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(example)
    return counter.get_total_flops() // 2 // len(example)


def state_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers as they are; tied ones count once."""
    own = {(tensor.data_ptr(), tensor.numel()): tensor for tensor in module.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in own.values())


@contextmanager
def _evaluating(module: nn.Module) -> Generator[None]:
    """In evaluation mode within the block; afterwards every part is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class Layer(NamedTuple):
    """One row of `layer_table`."""

    path: str
    kind: str
    shape: tuple[int, ...]
    """Of its output, the batch left out."""
    parameters: int
    macs: int


def layer_table(module: nn.Module, example: Tensor) -> list[Layer]:
    """Every module without children, in the order of their calls, and a last row for what is computed outside of them.

    >>> [(row.kind, row.parameters, row.macs) for row in layer_table(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(1, 3))]
    [('Linear', 8, 6), ('ReLU', 0, 0)]
    """
    rows: list[Layer] = []
    handles: list[Any] = []

    def note(path: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and given and isinstance(given[0], Tensor):
                rows.append(Layer(path, type(layer).__name__, tuple(output.shape[1:]), count_parameters(layer), 0))

        return hook

    for path, layer in module.named_modules():
        if not list(layer.children()):
            handles.append(layer.register_forward_hook(note(path)))
    try:
        with (
            _evaluating(module),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    root = type(module).__name__
    counts: dict[str, Any] = counter.get_flop_counts()
    done: set[str] = set()
    table: list[Layer] = []
    for row in rows:
        flops = 0 if row.path in done else sum(counts.get(f"{root}.{row.path}" if row.path else root, {}).values())
        done.add(row.path)
        table.append(row._replace(macs=flops // 2 // len(example)))
    rest = counter.get_total_flops() // 2 // len(example) - sum(row.macs for row in table)
    if rest > 0:
        table.append(Layer("", root, (), 0, rest))
    return table
