"""What is known of the numbers of rows: which are one column of a table, which are categories, how training rows spread.

An operation on rows needs it so that it does not invent half a category, and so that its strength is the same for a column of metres and
one of millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from mapsto.data.augment._base import Drawn
    from mapsto.kinds import Samples
    from mapsto_runtime.signature import Column

__all__ = ["RowColumns", "by_number", "columns_of", "known_columns"]

_LOOKED_AT = 10_000
"""Rows from which spreads are taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowColumns:
    """Of rows of D numbers (those of more axes are flattened)."""

    column: NDArray[np.int64]
    """Which column each number is of, from 0, shape (D,): those of a one-hot column share one."""
    categorical: NDArray[np.bool_]
    """Whether it stands for a category, shape (D,)."""
    spread: NDArray[np.float32]
    """Standard deviation over the training rows, shape (D,); 0 where a number is always the same."""
    mean: NDArray[np.float32]
    """Mean over the training rows, shape (D,): what a missing value becomes."""

    @staticmethod
    def of(rows: NDArray[Any], columns: Sequence[Column] = ()) -> RowColumns:
        """From rows (N, ...) and, where a table says them, its columns.

        Without them a number that is only ever 0 or 1 counts as a category, and neighbouring ones of which in each row just one is 1 as
        one column.

        >>> table = RowColumns.of(np.array([[0.5, 1, 0], [2.5, 0, 1], [9.0, 0, 1]]))
        >>> table.column.tolist(), table.categorical.tolist()
        ([0, 1, 1], [False, True, True])
        """
        flat = rows[:: max(1, len(rows) // _LOOKED_AT)].reshape(-1, int(np.prod(rows.shape[1:], dtype=np.int64)))
        if sum(column.width for column in columns) == flat.shape[1] and columns:
            column = np.repeat(np.arange(len(columns)), [each.width for each in columns])
            categorical = np.repeat([each.type == "words" for each in columns], [each.width for each in columns])
        else:
            categorical = np.asarray(((flat == 0) | (flat == 1)).all(0))
            column = _one_hot(flat, categorical)
        wide = flat.astype(np.float64)
        return RowColumns(
            column=column.astype(np.int64),
            categorical=categorical,
            spread=wide.std(0).astype(np.float32) if len(wide) else np.zeros(wide.shape[1], np.float32),
            mean=wide.mean(0).astype(np.float32) if len(wide) else np.zeros(wide.shape[1], np.float32),
        )

    @property
    def count(self) -> int:
        """How many columns there are."""
        return int(self.column[-1]) + 1 if len(self.column) else 0


_KNOWN: WeakKeyDictionary[Samples, RowColumns] = WeakKeyDictionary()


def columns_of(samples: Samples) -> RowColumns | None:
    """Of opened samples that are rows of numbers, looked at once; None for images and token ids."""
    is_text = samples.inputs.dtype.kind in "iu" and samples.inputs.dtype != np.uint8
    if samples.inputs.ndim == 4 or is_text:
        return None
    if samples not in _KNOWN:
        _KNOWN[samples] = RowColumns.of(samples.inputs, samples.preprocessing.columns)
    return _KNOWN[samples]


def known_columns(drawn: Drawn) -> RowColumns:
    """Of a batch of rows: what was found of its data set, else what the batch itself shows."""
    return drawn.columns if drawn.columns is not None else RowColumns.of(drawn.x.numpy(force=True))


def by_number(per_column: Tensor, columns: RowColumns) -> Tensor:
    """What was drawn for each column, (N, columns), for each of its numbers, (N, D)."""
    import torch

    return per_column[:, torch.as_tensor(columns.column)]


def _one_hot(rows: NDArray[Any], binary: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The column of each number (D,), where neighbouring ones of 0 and 1 that sum to 1 in every row are one column."""
    column, place, number = np.zeros(rows.shape[1], np.int64), 0, 0
    while place < rows.shape[1]:
        end = place + 1
        if binary[place] and len(rows):
            total = rows[:, place].astype(np.float64)
            while end < rows.shape[1] and binary[end] and total.max() <= 1 and total.min() < 1:
                total = total + rows[:, end]
                end += 1
            if not (total == 1).all():
                end = place + 1
        column[place:end] = number
        place, number = end, number + 1
    return column
