"""Samples that stay on disk: an array of which each read takes its rows alone.

A file that is mapped into memory would do, were it not for what mapping costs with many large rows: its pages count as the process's own
memory, a file that was cut short ends the process (SIGBUS), and damage goes unseen. So rows are read, and checked as they are.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from mapsto.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["StoredRows"]


class StoredRows:
    """What looks like an array (N, ...), and reads rows from disk where it is indexed.

    An index along the first axis gives an array in memory: a number, a slice, numbers or a mask. `taken` chooses rows without reading any.
    To ask for the whole as an array is refused where it does not fit into half of the memory that is free.
    """

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    """Of one row."""

    def __init__(self, places: NDArray[np.int64]) -> None:
        self._places = places

    @abstractmethod
    def read(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """The rows at these places of all that is stored, shape (n, ...), as a new array."""

    @abstractmethod
    def at(self, places: NDArray[np.int64]) -> StoredRows:
        """The same store, with these of its rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._places), *self.row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        import math

        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the whole would take in memory."""
        return self.size * self.dtype.itemsize

    def taken(self, indices: NDArray[np.int64]) -> StoredRows:
        """The rows at `indices`, in that order; nothing is read."""
        return self.at(self._places[indices])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        import numpy as np

        first, *inner = index if isinstance(index, tuple) else (index,)
        if first is None or first is Ellipsis:
            return np.asarray(self)[index]
        places = self._places[first]
        rows = self.read(places.reshape(-1)).reshape(*places.shape, *self.row_shape)
        return rows[(*(slice(None),) * places.ndim, *inner)] if inner else rows

    def reshape(self, *shape: Any) -> NDArray[Any]:
        """The whole in memory, in another shape."""
        import numpy as np

        return np.asarray(self).reshape(*shape)

    def astype(self, dtype: Any) -> NDArray[Any]:
        """The whole in memory, of another type."""
        import numpy as np

        return np.asarray(self).astype(dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np
        import psutil

        free = psutil.virtual_memory().available
        if self.nbytes > free / 2:
            raise DataError(
                f"this step takes all samples into memory at once: {len(self):,} of them are {self.nbytes / 1e9:.1f} GB, "
                f"and {free / 1e9:.1f} GB are free",
                where="images that are kept in shards",
                hint="give it a part of them: datasets.subset with per_class, or a smaller size",
            )
        whole = np.empty(self.shape, self.dtype)
        for start in range(0, len(self), 256):
            whole[start : start + 256] = self[start : start + 256]
        return whole if dtype is None else whole.astype(dtype, copy=False)
