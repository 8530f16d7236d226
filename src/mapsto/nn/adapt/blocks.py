"""The blocks of a network from its input to its head: what is unfrozen together, and shares a learning rate.

A module is taken apart into its children where they are a list or a sequence of layers, where a list of layers is somewhere inside, as
in a transformer's encoder, or where it holds most of the parameters; a normalisation belongs to what comes before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from torch import Tensor, nn

from mapsto.nn.network.head import head_path
from mapsto.nn.network.inference import evaluating
from mapsto.nn.network.layer_calls import watching

__all__ = ["blocks_of"]

_MOST: Final = 0.8
"""Share of the parameters below the head from which on a module is taken apart."""


def blocks_of(module: nn.Module, example: Tensor) -> list[tuple[str, ...]]:
    """Names of the parameters of each block, in the order in which a forward pass of `example` first calls them; the head comes last.

    >>> import torch
    >>> net = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [block[0] for block in blocks_of(net, torch.ones(2, 4))]
    ['0.0.weight', '1.weight', '3.weight']
    """
    own = head_path(module)
    names = [name for name, _ in module.named_parameters()]
    heads = [name for name in names if own is not None and name.startswith(f"{own}.")]
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters() if name not in heads}
    paths = list(_parts(module, "", sizes, own))
    called = _first_calls(module, paths, example)
    paths.sort(key=lambda path: called.get(path, -1))
    blocks: list[list[str]] = []
    taken: set[str] = set(heads)
    for path in paths:
        block = [name for name in names if name not in taken and (name == path or name.startswith(f"{path}."))]
        taken.update(block)
        if blocks and block and all(_is_vector(module, name) for name in block):
            blocks[-1] += block
        elif block:
            blocks.append(block)
    loose = [name for name in names if name not in taken]
    if loose:  # parameters of the network itself, such as positions: as low as its input
        blocks[:1] = [[*loose, *(blocks[0] if blocks else [])]]
    return [tuple(block) for block in (*blocks, heads) if block]


def _parts(module: nn.Module, path: str, sizes: dict[str, int], own: str | None) -> Iterator[str]:
    """Paths of the modules that are a block each, in the order in which they were registered."""
    for name, child in module.named_children():
        where = f"{path}.{name}" if path else name
        if where == own or not any(True for _ in child.parameters()):
            continue
        size = sum(count for each, count in sizes.items() if each.startswith(f"{where}."))
        inner = [part for part in child.children() if any(True for _ in part.parameters())]
        apart = isinstance(child, nn.ModuleList) or any(isinstance(part, nn.ModuleList) for part in child.modules())
        if len(inner) > 0 and (apart or size > _MOST * sum(sizes.values())):
            yield from _parts(child, where, sizes, own)
        else:
            yield where


def _first_calls(module: nn.Module, paths: list[str], example: Tensor) -> dict[str, int]:
    """Path → the place of its first call in a forward pass."""
    import torch

    calls: dict[str, int] = {}

    def note(path: str, given: object, output: object) -> None:
        calls.setdefault(path, len(calls))

    layers = {path: module.get_submodule(path) for path in paths}
    with (
        evaluating(module),
        torch.no_grad(),
        watching(layers, note, before=True),
    ):
        module(example)
    return calls


def _is_vector(module: nn.Module, name: str) -> bool:
    return module.get_parameter(name).ndim <= 1
