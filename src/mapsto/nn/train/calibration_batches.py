"""Calibration batches: a few samples that are run through a network without training on it, with their labels where it has classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mapsto.context import Context
from mapsto.data.checks import require_finite, require_some
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, Samples
from mapsto.nn.network.dense_outputs import refuse_dense
from mapsto.nn.network.preprocess import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LabelledBatch", "as_inputs", "chosen", "inputs_of", "labelled", "require_own_classes"]

_BATCH = 32


class LabelledBatch(NamedTuple):
    """One batch: inputs (N, ...) and labels (N,), int64."""

    inputs: Tensor
    labels: Tensor


def inputs_of(value: Network, data: Any, samples: int, ctx: Context, *, where: str) -> list[Tensor]:
    """At most `samples` inputs drawn from a data field, in batches of up to 32.

    Raises `DataError` for no samples or values that are not finite, `DomainError` where they are not inputs of the network.
    """
    return [batch.inputs for batch in _drawn(value, data, samples, ctx, where)]


def labelled(value: Network, data: Any, samples: int, ctx: Context, *, where: str) -> list[LabelledBatch]:
    """As `inputs_of`, with labels. Raises `DataError` for data without classes, `DomainError` for other classes than the network's."""
    require_own_classes(value, ctx.dataset(data), where=where)
    return _drawn(value, data, samples, ctx, where)


def chosen(samples: Samples, count: int, ctx: Context, *, stream: str) -> NDArray[np.int64]:
    """At most `count` of the samples, drawn without replacement by a random stream of the step: their indices."""
    return ctx.random(stream).permutation(len(samples))[:count]


def as_inputs(value: Network, raw: NDArray[Any], *, where: str, device: torch.device | str = "cpu") -> Tensor:
    """Raw samples (N, ...) prepared as the network takes them. Raises `DomainError` where they are not inputs of it."""
    inputs = prepare(raw, value.signature.preprocessing, device=device)
    spec = value.signature.inputs[0]
    sizes = inputs.shape[1:]
    fits = inputs.dtype == getattr(torch, spec.dtype) and (
        len(sizes) == len(spec.shape) - 1
        and all(isinstance(own, str) or own == size for own, size in zip(spec.shape[1:], sizes, strict=True))
    )
    if len(value.signature.inputs) != 1 or not fits:
        given = str(inputs.dtype).removeprefix("torch.")
        raise DomainError(
            f"the data gives inputs of shape {tuple(inputs.shape[1:])}, {given}; the network takes {spec.shape[1:]}, {spec.dtype}",
            where=where,
            hint="give data like the network's own",
        )
    return inputs


def require_own_classes(value: Network, samples: Samples, *, where: str) -> None:
    """Raises `DataError` for data without one class a sample, `DomainError` for other classes than the network's, or dense outputs."""
    refuse_dense(value.signature, where=where)
    if len(samples) == 0 or samples.labels.ndim != 1 or samples.labels.dtype.kind not in "iu":
        raise DataError("the data holds no samples labelled with classes", where=f"{where}: data", hint="give some")
    if value.signature.classes is None and value.adaptation is not None:
        raise DomainError("the network is a learner without classes", where=where, hint="give tasks, not data")
    outputs = value.signature.outputs[0].shape[-1]
    if outputs != len(samples.classes):
        raise DomainError(
            f"the network has {outputs} outputs, the data {len(samples.classes)} classes",
            where=f"{where}: data",
            hint="give data of the classes that the network was trained on",
        )


def _drawn(value: Network, data: Any, samples: int, ctx: Context, where: str) -> list[LabelledBatch]:
    where = f"{where}: data"
    found = require_some(ctx.dataset(data), where=where)
    places = chosen(found, samples, ctx, stream="samples")
    require_finite(found.inputs, where=where)
    inputs = as_inputs(value, found.inputs[places], where=where)
    labels = torch.from_numpy(np.asarray(found.labels[places]))
    return [LabelledBatch(*parts) for parts in zip(inputs.split(_BATCH), labels.split(_BATCH), strict=True)]
