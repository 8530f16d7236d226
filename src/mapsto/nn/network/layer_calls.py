"""Watch the calls of a network's layers while it runs: what each layer is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["CallNote", "EndPass", "run_watched", "watching"]

CallNote: TypeAlias = Callable[[str, tuple[Any, ...], Any], None]
"""Path of a layer, the arguments of a call, and its output (None where it is told before the layer runs)."""


class EndPass(Exception):
    """Raised by a note to end `run_watched`'s pass over the batch at hand: what comes after the layer is not computed."""


@contextmanager
def watching(layers: Mapping[str, nn.Module], note: CallNote, *, before: bool = False) -> Generator[None]:
    """Tell `note` of every call of the layers, by path, within the block; with `before` as it begins, else as it ends.

    >>> net, shapes = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), []
    >>> with watching({"0": net[0]}, lambda path, given, output: shapes.append((path, given[0].shape, output.shape))):
    ...     answer = net(torch.ones(2, 4))
    >>> shapes
    [('0', torch.Size([2, 4]), torch.Size([2, 8]))]
    """

    def entering(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, given: tuple[Any, ...]) -> None:
            note(path, given, None)

        return hook

    def leaving(path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            note(path, given, output)

        return hook

    handles: list[RemovableHandle] = []
    try:
        for path, layer in layers.items():
            if before:
                handles.append(layer.register_forward_pre_hook(entering(path)))
            else:
                handles.append(layer.register_forward_hook(leaving(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_watched(
    module: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Tensor],
    note: CallNote,
    *,
    before: bool = False,
) -> None:
    """Run `module` on each batch without gradients; `note` is told of the calls of `layers` as `watching` does."""
    with watching(layers, note, before=before), torch.no_grad():
        for batch in batches:
            with suppress(EndPass):
                module(batch)
