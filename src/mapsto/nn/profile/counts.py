"""How large a module is: parameters, multiply-accumulates and bytes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mapsto.nn.network.inference import evaluating
from mapsto.nn.network.layer_calls import watching

__all__ = ["Layer", "count_macs", "count_parameters", "layer_table", "state_bytes", "taken_apart"]


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers; tied weights count once.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions, linear and recurrent layers, attention and matrix products for one sample.

    Half of torch's floating-point operations: additions of biases, normalisation, activations and pooling are not counted, as is the
    custom in papers on pruning. What torch computes in one fused call (attention, transformer layers, LSTM, GRU) is taken apart first.

    Parameters
    ----------
    example
        A batch, shape (N, ...); the count is divided by N.

    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 4, 4))
    3456
    """
    counter = _counted(module, example)
    return counter.get_total_flops() // 2 // len(example)


def state_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers as they are; tied ones count once."""
    own = {(tensor.data_ptr(), tensor.numel()): tensor for tensor in module.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in own.values())


def _counted(module: nn.Module, example: Tensor) -> FlopCounterMode:
    """The floating-point operations of a forward pass, seen one by one."""
    counter = FlopCounterMode(display=False, custom_mapping=_MORE)
    with evaluating(module), torch.no_grad(), taken_apart(), counter:
        module(example)
    return counter


@contextmanager
def taken_apart() -> Generator[None]:
    """Fused kernels give way to the operations they are made of: a counter sees no products within them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _of_vectors(first: tuple[int, ...], *others: Any, **_: Any) -> int:
    """Of a product of a matrix or a vector with a vector."""
    return 2 * math.prod(first)


def _of_added_vectors(added: tuple[int, ...], matrix: tuple[int, ...], *others: Any, **_: Any) -> int:
    return 2 * math.prod(matrix)


def _of_a_recurrent_layer(
    x: tuple[int, ...], inputs: tuple[int, ...], states: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Of one layer in one direction: each step of each sample multiplies the weights of its input and of the state before."""
    return 2 * math.prod(x[:2]) * (math.prod(inputs) + math.prod(states))


_MORE: dict[Any, Any] = {
    torch.ops.aten.mv: _of_vectors,
    torch.ops.aten.dot: _of_vectors,
    torch.ops.aten.vdot: _of_vectors,
    torch.ops.aten.addmv: _of_added_vectors,
    torch.ops.aten.mkldnn_rnn_layer: _of_a_recurrent_layer,
}
"""What multiplies and torch's own counter leaves out."""


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
    layers = {
        path: layer
        for path, layer in module.named_modules()
        if not list(layer.children()) or next(layer.parameters(recurse=False), None) is not None
    }

    def note(path: str, given: tuple[Any, ...], output: Any) -> None:
        layer = layers[path]
        output = output[0] if isinstance(layer, nn.RNNBase) else output
        if isinstance(output, Tensor) and given and isinstance(given[0], Tensor):
            rows.append(Layer(path, type(layer).__name__, tuple(output.shape[1:]), _own(layer), 0))

    with watching(layers, note):
        counter = _counted(module, example)
    root = type(module).__name__
    counts: dict[str, Any] = counter.get_flop_counts()
    flops = {row.path: sum(counts.get(f"{root}.{row.path}" if row.path else root, {}).values()) for row in rows}
    inner: dict[str, int] = defaultdict(int)
    for path, found in flops.items():  # a layer with parts of its own, as for padding, counts without what these count
        around = [other for other in flops if other != path and f"{path}.".startswith(f"{other}." if other else "")]
        if around:
            inner[max(around, key=len)] += found
    done: set[str] = set()
    table: list[Layer] = []
    for row in rows:
        own = 0 if row.path in done else flops[row.path] - inner[row.path]
        done.add(row.path)
        table.append(row._replace(macs=own // 2 // len(example)))
    rest = counter.get_total_flops() // 2 // len(example) - sum(row.macs for row in table)
    if rest > 0:
        table.append(Layer("", root, (), 0, rest))
    return table


def _own(layer: nn.Module) -> int:
    """Numbers of a layer itself; those of its parts stand in rows of their own."""
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))
