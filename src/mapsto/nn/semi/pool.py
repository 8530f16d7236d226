"""A pool of samples without labels beside labelled examples: whether it is of their kind, and what of it says nothing new."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.checks import require_classes, require_finite, require_some
from mapsto.errors import DataError
from mapsto.kinds import Samples
from mapsto_runtime.preprocessing.texts import joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["labelled_and_pool", "without_copies"]


def labelled_and_pool(data: Any, unlabelled: Any, ctx: Context, *, where: str) -> tuple[Samples, NDArray[Any]]:
    """The labelled examples and the inputs (M, ...) of the pool, both as the network reads them; labels of the pool are never read.

    What is in the pool and labelled too is left out of the pool, and counted in a note.

    Raises
    ------
    DataError
        Fewer than two classes or a class without an example, an empty pool, NaN, or a pool of other samples than the labelled ones.
    """
    samples = ctx.dataset(data)
    require_classes(samples, at_least=max(2, len(samples.classes)), where=where)
    require_finite(samples.inputs, where=f"{where}: data")
    pool = require_some(ctx.dataset(unlabelled), where=f"{where}: unlabelled")
    samples, pool = _of_one_length(samples, pool)
    require_same_kind(samples, pool, where=f"{where}: unlabelled")
    require_finite(pool.inputs, where=f"{where}: unlabelled")
    kept = without_copies(samples.inputs, pool.inputs)
    copies = len(pool) - len(kept)
    if copies:
        what = "1 sample of the pool is" if copies == 1 else f"{copies} samples of the pool are"
        ctx.note(f"{what} among the labelled examples too, and left out of the pool of {len(pool)}")
    if len(kept) < len(samples.classes):
        ctx.warn(
            f"the pool holds {len(kept)} samples that are not labelled, fewer than there are classes ({len(samples.classes)}); "
            "so few hardly help: give more"
        )
    return samples, pool.inputs[kept]


def _of_one_length(samples: Samples, pool: Samples) -> tuple[Samples, Samples]:
    """Texts padded to the longest of both; other samples as they are."""
    kinds = {samples.preprocessing.kind, pool.preprocessing.kind}
    if kinds != {"text"} or samples.inputs.shape[1:-1] != pool.inputs.shape[1:-1]:
        return samples, pool
    both = joined([samples.inputs, pool.inputs], samples.preprocessing.padding)
    ours, theirs = both[: len(samples)], both[len(samples) :]
    return dataclasses.replace(samples, inputs=ours), dataclasses.replace(pool, inputs=theirs)


def require_same_kind(samples: Samples, pool: Samples, *, where: str) -> None:
    """Raises `DataError` where the pool's samples have another shape or type than the labelled ones."""
    known, columns = samples.preprocessing.columns, pool.preprocessing.columns
    if known and columns and [each.name for each in known] != [each.name for each in columns]:
        missing = sorted({each.name for each in known} - {each.name for each in columns})
        raise DataError(
            f"the pool is a table of other columns than the labelled rows{': it lacks ' + ', '.join(missing[:5]) if missing else ''}",
            where=where,
            hint="give rows of the same table",
        )
    ours, theirs = (samples.inputs.shape[1:], samples.inputs.dtype), (pool.inputs.shape[1:], pool.inputs.dtype)
    if ours != theirs:
        raise DataError(
            f"the pool holds samples of shape {theirs[0]}, {theirs[1]}; the labelled ones are of shape {ours[0]}, {ours[1]}",
            where=where,
            hint="give samples of the same size, channels and columns (image folders are read alike where neither sets size or channels)",
        )


def without_copies(labelled: NDArray[Any], pool: NDArray[Any]) -> NDArray[np.int64]:
    """The places (n,) in the pool of what is not, value by value, among the labelled samples.

    >>> without_copies(np.array([[1, 2], [3, 4]]), np.array([[3, 4], [5, 6], [1, 2], [5, 6]])).tolist()
    [1, 3]
    """
    known = {_digest(sample) for sample in labelled}
    return np.array([place for place, sample in enumerate(pool) if _digest(sample) not in known], np.int64)


def _digest(sample: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(sample).tobytes()).digest()
