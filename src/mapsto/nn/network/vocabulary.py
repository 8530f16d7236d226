"""How many ids a network knows: which places of its input are looked up in an embedding, and how many rows that has.

PyTorch refuses an id beyond them. ONNX's Gather takes -1 for the last row, and an embedding whose rows were pruned maps ids by an index
that does too, so that a signature says how many there are and inputs are checked against it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mapsto.kinds import Signature
from mapsto.nn.edits.embedding_rows import rows_of

__all__ = ["ids_of", "ids_of_pairs", "with_ids"]

_MOST_PLACES = 4096
"""Of an input of floats: a larger one holds no categories, and to try it takes long."""


def with_ids(signature: Signature, module: nn.Module) -> Signature:
    """The signature with the number of ids of its input, where that is looked up and not said yet; `module` is in evaluation mode."""
    first = signature.inputs[0]
    if first.ids or signature.preprocessing.kind != "none" or any(isinstance(size, str) for size in first.shape[1:]):
        return signature
    example = torch.zeros(signature.input_shape(2), dtype=getattr(torch, first.dtype))
    known = dataclasses.replace(first, ids=ids_of(module, example))
    return dataclasses.replace(signature, inputs=(known, *signature.inputs[1:]))


def ids_of(module: nn.Module, example: Tensor) -> tuple[int, ...]:
    """How many ids each place of the input may hold, as `TensorSpec.ids` has it; `example` has the shape (N, ...) and the input's type.

    Every place is given a code of zeros and ones over a few samples. An embedding reads the places whose codes it is given, unless an id
    that it lacks does not come through to it, as where ids are compared or clamped before.

    >>> ids_of(nn.Sequential(nn.Embedding(9, 2), nn.Flatten()), torch.zeros(1, 3, dtype=torch.int64))
    (9,)
    """
    shape = example.shape[1:]
    floats = example.is_floating_point()
    if floats and (
        shape.numel() > _MOST_PLACES or not any(isinstance(part, nn.Embedding) for part in module.modules())
    ):
        return ()
    codes = _codes(shape.numel())
    limits = torch.zeros(shape.numel(), dtype=torch.int64)
    for number, (given, rows) in enumerate(_lookups(module, codes.unflatten(1, shape).to(example.dtype))):
        read = _places_read(given, codes)
        beyond = torch.where(read, rows, 0).unflatten(0, shape)[None].to(example.dtype)
        if bool(read.any()) and bool((_nth(_lookups(module, beyond), number) == rows).any()):
            limits[read] = torch.where(limits[read] == 0, rows, limits[read].clamp(max=rows))
    return _shortest(limits.unflatten(0, shape))


def ids_of_pairs(module: nn.Module, example: Tensor) -> tuple[int, ...]:
    """How many ids the places of pairs of texts (N, 2, L) may hold, where both are looked up in one table as one batch of 2 N texts."""
    batch = (torch.arange(example.numel()) % 3 == 0).reshape(example.shape).to(example.dtype)
    rows = [count for ids, count in _lookups(module, batch) if torch.equal(ids.flatten(), batch.flatten().long())]
    return (min(rows),) if rows else ()


def _codes(places: int) -> Tensor:
    """A number from 1 for each place in binary, a digit in each row, below a row of zeros; shape (1 + digits, places)."""
    digits = torch.arange(places.bit_length())[:, None]
    numbers = torch.arange(1, places + 1)
    return torch.cat([torch.zeros(1, places, dtype=torch.int64), numbers >> digits & 1])


def _places_read(ids: Tensor, codes: Tensor) -> Tensor:
    """Which places have their code among the ids that a lookup was given for the samples; shape (places,), bool."""
    count, places = codes.shape
    known = torch.zeros(places + 1, dtype=torch.bool)
    for axis in range(ids.ndim):
        if ids.shape[axis] != count:
            continue
        rows = ids.movedim(axis, 0).reshape(count, -1)
        whole = ((rows == 0) | (rows == 1)).all(0) & (rows[0] == 0)
        numbers = (rows[1:] << torch.arange(count - 1)[:, None]).sum(0)[whole]
        known[numbers[(numbers >= 0) & (numbers <= places)]] = True
        if bool(known[1:].any()):
            break
    return known[1:]


def _lookups(module: nn.Module, batch: Tensor) -> list[tuple[Tensor, int]]:
    """The ids that each lookup of a forward pass is given, int64, and the rows of its table; those up to one that refuses its ids."""
    mode = _Lookups()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), mode:
            module(batch)
    except Exception:  # whatever someone's forward raises for ids that mean nothing to it: what came before counts
        return mode.calls
    return mode.calls


class _Lookups(TorchFunctionMode):
    """Keeps what every embedding is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {**dict(zip(("input", "weight", "layer"), args, strict=False)), **(kwargs or {})}
        mapped = given.get("layer")  # an embedding whose rows were pruned; of any other this is its padding
        if func is functional.embedding or isinstance(mapped, nn.Embedding):
            table = rows_of(mapped) if isinstance(mapped, nn.Embedding) else given["weight"]
            self.calls.append((given["input"].detach().long().cpu(), len(table)))
        return func(*args, **(kwargs or {}))


def _nth(calls: list[tuple[Tensor, int]], number: int) -> Tensor:
    return calls[number][0] if number < len(calls) else torch.zeros(0)


def _shortest(limits: Tensor) -> tuple[int, ...]:
    """One number where it is the same everywhere, else one for each along the first axis: the largest there, 0 where one place is free."""
    if not bool(limits.any()):
        return ()
    rows = limits.flatten(1) if limits.ndim > 1 else limits[:, None]
    lowest = torch.where((rows == 0).any(1), 0, rows.amax(1))
    if bool((lowest == lowest[0]).all()):
        lowest = lowest[:1]
    return tuple(int(number) for number in lowest) if bool(lowest.any()) else ()
