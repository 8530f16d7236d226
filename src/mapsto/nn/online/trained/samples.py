"""Samples of a stream as they are kept to be learnt from again: in few bytes, and as a network's input when they are needed.

An image of whole numbers stays as it came, one byte a channel and pixel. A text is kept as its token ids, a row or anything else as the
network takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mapsto.data.augment._apply import changed, generator_of
from mapsto.errors import DomainError
from mapsto.kinds import Block, ColumnType, Signature
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.online.encoder import EventSamples
from mapsto_runtime.preprocessing.images import lightened

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapsto.data.augment import Augmentation

__all__ = ["RawSamples", "packed", "unpacked"]

_DTYPES = ("uint8", "float32", "int32")
_MOST_DIMENSIONS = 4
_IMAGE = 3
"""Dimensions of an image: channels, height, width."""


class RawSamples:
    """Events ↔ samples ↔ a network's input, by its signature; with `changes` images are changed at random when they are learnt from.

    `types` are those of columns that the stream knows.

    Raises `DomainError` for a network that answers with something other than scores of classes or an embedding for each sample.
    """

    def __init__(
        self,
        signature: Signature,
        changes: Sequence[Augmentation] = (),
        types: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self._changes = tuple(changes)
        if len(signature.outputs[0].shape) > 2:
            raise DomainError(
                f"the network gives an output of shape {signature.outputs[0].shape} for each sample, not one answer",
                where="the network",
                hint="learn with a network that classifies",
            )
        self._events = EventSamples(signature, types)
        self._before = signature.preprocessing
        self.padding = self._before.padding
        """Of token ids."""

    def taken(self, block: Block) -> list[str]:
        """The columns of a block that make a sample. Raises `DomainError` where it lacks them."""
        return self._events.taken(block)

    def read(self, cells: Mapping[str, Any]) -> NDArray[Any]:
        """An event's sample (...) as it is kept. Raises `DataError` for what the network cannot take."""
        if self._before.kind == "image":
            raw = np.asarray(next(iter(cells.values())))
            if raw.dtype == np.uint8 and raw.ndim == _IMAGE and raw.shape[0] in (1, 3):
                return lightened(raw).copy() if self._before.ink == "light" else raw.copy()
        return self.kept(self._events.prepared(cells)[0])

    def kept(self, prepared: NDArray[Any]) -> NDArray[Any]:
        """A sample (...) that is prepared already, as it is kept."""
        return np.ascontiguousarray(prepared, np.float32 if prepared.dtype.kind == "f" else np.int32)

    def inputs(self, samples: Sequence[NDArray[Any]]) -> Tensor:
        """The network's input (N, ...) of samples that are kept; of texts filled up to the longest."""
        first = samples[0]
        if all(each.shape == first.shape and each.dtype == first.dtype for each in samples):
            return self._input(np.stack(samples))
        if first.dtype == np.int32:
            length = max(each.shape[-1] for each in samples)
            filled = np.full((len(samples), *first.shape[:-1], length), self._before.padding, np.int32)
            for place, each in enumerate(samples):
                filled[place, ..., : each.shape[-1]] = each
            return self._input(filled)
        return torch.cat([self._input(each[None]) for each in samples])

    def drawn(self, samples: Sequence[NDArray[Any]], draws: np.random.Generator) -> Tensor:
        """As `inputs`, for training: images of one size are changed at random."""
        if not self._changes or samples[0].dtype != np.uint8 or any(each.shape != samples[0].shape for each in samples):
            return self.inputs(samples)
        seed = int(draws.integers(2**48))
        raw = torch.tensor(np.stack(samples))
        return prepare(changed(self._changes, raw, lambda place: generator_of(seed + place)), self._before)

    def _input(self, stacked: NDArray[Any]) -> Tensor:
        if stacked.dtype == np.uint8:
            return prepare(torch.tensor(stacked), self._before)
        whole = stacked.astype(np.int64) if stacked.dtype == np.int32 else stacked
        return torch.tensor(whole)  # a copy at an address that suits torch, whose last bits can depend on it


def packed(samples: Sequence[NDArray[Any]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Samples of any shapes as two arrays: their bytes, and a row of type and shape for each.

    >>> made = packed([np.zeros((1, 2), np.uint8), np.ones(3, np.float32)])
    >>> [array.shape for array in made], [sample.tolist() for sample in unpacked(*made)]
    ([(14,), (2, 5)], [[[0, 0]], [1.0, 1.0, 1.0]])
    """
    shapes = np.full((len(samples), 1 + _MOST_DIMENSIONS), -1, np.int64)
    for place, each in enumerate(samples):
        shapes[place, 0] = _DTYPES.index(each.dtype.name)
        shapes[place, 1 : 1 + each.ndim] = each.shape
    content = b"".join(each.tobytes() for each in samples)
    return np.frombuffer(content, np.uint8).copy(), shapes


def unpacked(content: NDArray[Any], shapes: NDArray[Any]) -> list[NDArray[Any]]:
    """The samples of `packed`. Raises `ValueError` or `LookupError` where these do not fit together."""
    data, start = np.ascontiguousarray(content, np.uint8).tobytes(), 0
    found: list[NDArray[Any]] = []
    for code, *dimensions in shapes.tolist():
        dtype = np.dtype(_DTYPES[code])
        shape = tuple(each for each in dimensions if each >= 0)
        count = int(np.prod(shape, dtype=np.int64))
        found.append(np.frombuffer(data, dtype, count, start).reshape(shape).copy())
        start += count * dtype.itemsize
    if start != len(data):
        raise ValueError(f"{len(data)} bytes of samples where their shapes take {start}")
    return found
