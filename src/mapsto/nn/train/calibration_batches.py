"""Samples that a mapping looks at without training on them: a few batches of a network's inputs, with their labels where it has classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mapsto.context import Context
from mapsto.data.checks import require_finite, require_some
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.nn.network.dense_outputs import refuse_dense
from mapsto.nn.network.preprocess import prepare

__all__ = ["Labelled", "inputs_of", "labelled"]

_BATCH = 32


class Labelled(NamedTuple):
    """One batch: inputs (N, ...) and labels (N,), int64."""

    inputs: Tensor
    labels: Tensor


def inputs_of(value: Network, data: Any, samples: int, ctx: Context, *, where: str) -> list[Tensor]:
    """At most `samples` inputs drawn from a data field, in batches of up to 32.

    Raises `DataError` for no samples or values that are not finite, `DomainError` where they are not inputs of the network.
    """
    return [batch.inputs for batch in _drawn(value, data, samples, ctx, where)]


def labelled(value: Network, data: Any, samples: int, ctx: Context, *, where: str) -> list[Labelled]:
    """As `inputs_of`, with labels. Raises `DataError` for data without classes, `DomainError` for other classes than the network's."""
    refuse_dense(value.signature, where=where)
    found = ctx.dataset(data)
    if found.labels.ndim != 1 or found.labels.dtype.kind not in "iu":
        raise DataError("the data holds no samples labelled with classes", where=f"{where}: data", hint="give some")
    outputs = value.signature.outputs[0].shape[-1]
    if outputs != len(found.classes):
        raise DomainError(
            f"the network has {outputs} outputs, the data {len(found.classes)} classes",
            where=f"{where}: data",
            hint="give data of the classes that the network was trained on",
        )
    return _drawn(value, data, samples, ctx, where)


def _drawn(value: Network, data: Any, samples: int, ctx: Context, where: str) -> list[Labelled]:
    found = require_some(ctx.dataset(data), where=f"{where}: data")
    chosen = ctx.random("samples").permutation(len(found))[:samples]
    require_finite(found.inputs, where=f"{where}: data")
    inputs = prepare(found.inputs[chosen], value.signature.preprocessing)
    spec = value.signature.inputs[0]
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if inputs.dtype != dtype or tuple(inputs.shape) != value.signature.input_shape(len(chosen)):
        given = str(inputs.dtype).removeprefix("torch.")
        raise DomainError(
            f"the data gives inputs of shape {tuple(inputs.shape[1:])}, {given}; the network takes {spec.shape[1:]}, {spec.dtype}",
            where=f"{where}: data",
            hint="give data like the network's own",
        )
    labels = torch.from_numpy(np.asarray(found.labels[chosen]))
    return [Labelled(*parts) for parts in zip(inputs.split(_BATCH), labels.split(_BATCH), strict=True)]
