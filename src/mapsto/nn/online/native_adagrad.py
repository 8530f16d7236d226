"""`AdaGrad` by native code (``native/csrc/softmax_learner.cpp``), which takes whole blocks at once."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.errors import DomainError
from mapsto.native.tabular import learner_library
from mapsto.nn.online.adagrad import AdaGrad
from mapsto.nn.online.event_rows import Columns, WholeBlock
from mapsto.nn.online.rule import BlockRule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NativeAdaGrad", "adagrad"]

_P, _I, _Z = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "scores": (None, (_P, _I, _P, _P)),
    "learn": (None, (_P, _I, _P, _P, _I)),
    "within": (_I, (_Z, _P)),
    "take": (_I, (_P, _I, _P, _P, _I, _P)),
}


class _Learnt(ctypes.Structure):
    """As `Learnt` in the C++."""

    _fields_ = (
        ("weights", _P),
        ("squares", _P),
        ("sums", _P),
        ("places", _P),
        ("rate", ctypes.c_double),
        ("classes", ctypes.c_int32),
        ("columns", ctypes.c_int32),
    )


def adagrad(rate: float) -> AdaGrad:
    """The rule, by native code where that is to be had. The other takes longer, and gives the same bits."""
    return NativeAdaGrad(rate) if _library() is not None else AdaGrad(rate)


class NativeAdaGrad(AdaGrad, BlockRule):
    """Its arrays are those of `AdaGrad`, which native code is shown.

    >>> rule = NativeAdaGrad(0.2)
    >>> rule.grow(2, 2)
    >>> rule.learn(np.array([1.0, 1.0]), 0)
    >>> rule.scores(np.array([1.0, 1.0])).round(3).tolist()
    [0.69, 0.31]
    """

    def __init__(self, rate: float) -> None:
        library = _library()
        if library is None:
            raise DomainError("there is no native code of online.softmax on this machine", hint="use AdaGrad")
        self._scores_of, self._learn, self._within, self._take = (
            getattr(library, f"mapsto_softmax_{name}") for name in _SIGNATURES
        )
        self._learnt = _Learnt(rate=rate)
        self._at = ctypes.addressof(self._learnt)
        self._columns: Columns | None = None
        self._shape, self._table, self._table_at = (0, 0), np.empty((0, 0)), 0
        super().__init__(rate)

    def fits(self, block: WholeBlock) -> bool:
        return bool(self._within(block.x.size, block.address))

    def take(
        self, columns: Columns, count: int, address: int, labels: Sequence[int], known: int
    ) -> NDArray[np.float64] | None:
        shape = (count, self._learnt.classes)
        if shape != self._shape:
            self._shape, self._table = shape, np.empty(shape)
            self._table_at = self._table.ctypes.data
        if columns is not self._columns:
            self._point(columns)
        numbers = array("i", labels)
        done = self._take(self._at, count, address, numbers.buffer_info()[0], known, self._table_at)
        return self._table.copy() if done else None

    def ask(self, block: WholeBlock) -> NDArray[np.float64] | None:
        table = np.empty((block.events, self._learnt.classes))
        self._point(block.columns)
        done = self._take(self._at, block.events, block.address, None, table.shape[1], table.ctypes.data)
        return table if done else None

    def _allocate(self, weights: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        super()._allocate(weights, squares)
        self._learnt.weights, self._learnt.squares = weights.ctypes.data, squares.ctypes.data
        self._learnt.classes = weights.shape[1]
        # to ask an array where it lies takes longer than to copy a row
        self._row, self._p = np.empty(weights.shape[0]), np.empty(weights.shape[1])
        self._row_at, self._p_at = self._row.ctypes.data, self._p.ctypes.data

    def _point(self, columns: Columns) -> None:
        """Show native code the columns of a block."""
        self._columns = columns
        self._learnt.sums, self._learnt.places = ctypes.addressof(columns.sums), ctypes.addressof(columns.places)
        self._learnt.columns = len(columns.places)

    def _answer(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        self._row[:] = row
        self._scores_of(self._at, len(row), self._row_at, self._p_at)
        return self._p.copy()

    def _step(self, row: NDArray[np.float64], p: NDArray[np.float64], label: int) -> None:
        self._row[:] = row
        self._p[:] = p
        self._learn(self._at, len(row), self._row_at, self._p_at, label)


@cache
def _library() -> Any:
    """None where it is neither prebuilt for this machine nor can be compiled."""
    try:
        library = ctypes.CDLL(str(learner_library("softmax_learner")))
    except (DomainError, OSError):
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"mapsto_softmax_{name}")
        function.restype, function.argtypes = result, arguments
    return library
