"""The inverse of a sum of outer products, kept up with row by row.

``A = λ I + Σ c x xᵀ``. A row changes the inverse by ``−k kᵀ / s`` with ``k = A⁻¹ x`` and ``s = 1/c + xᵀ k`` (Sherman and Morrison, 1950).
Up to 64 such changes are kept apart, and then enter the matrix in one product. How many are apart depends on how many rows there were and
on nothing else, and every other product is of one row, so that blocks of any size give the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RunningInverse", "added_products", "packed", "unpacked"]

_APART = 64
"""Changes that are kept apart: more cost more a row, fewer cost more a product."""


class RunningInverse:
    """The inverse ``A⁻¹`` of a matrix (size, size) to which rows are added.

    Parameters
    ----------
    ridge
        λ, what the diagonal holds before the first row.

    >>> inverse = RunningInverse(2.0)
    >>> inverse.grow(2)
    >>> row = np.array([1.0, 0.0])
    >>> inverse.add(inverse.times(row), row)
    1.5
    >>> inverse.times(np.array([3.0, 2.0])).tolist()
    [1.0, 1.0]
    """

    def __init__(self, ridge: float) -> None:
        self._ridge = ridge
        self._set(np.zeros((0, 0)))

    @property
    def size(self) -> int:
        """Rows and columns."""
        return len(self._inverse)

    def grow(self, size: int) -> None:
        """Make room for rows of so many numbers, of which those before had zeros at the places that are new."""
        before = self.size
        if size > before:
            inverse = np.zeros((size, size), order="F")
            inverse[:before, :before] = self._inverse
            inverse[np.arange(before, size), np.arange(before, size)] = 1.0 / self._ridge
            rows = np.zeros((_APART, size))
            rows[:, :before] = self._rows
            self._inverse, self._rows = inverse, rows

    def set(self, inverse: NDArray[np.float64], ridge: float) -> None:
        """Take a matrix (size, size) that was inverted anew, with its λ."""
        self._ridge = ridge
        self._set(inverse)

    def times(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """``A⁻¹ x`` (size,) for a row x (size,)."""
        product = cast("NDArray[np.float64]", _blas().dsymv(1.0, self._inverse, row))
        if self._apart:
            rows = self._rows[: self._apart]
            product -= (rows.dot(row) / self._scales[: self._apart]).dot(rows)
        return product

    def add(self, product: NDArray[np.float64], row: NDArray[np.float64], count: float = 1.0) -> float:
        """Add the row x, `count` times; `product` is ``A⁻¹ x``. Returns s."""
        scale = 1.0 / count + float(row.dot(product))
        self._rows[self._apart], self._scales[self._apart] = product, scale
        self._apart += 1
        if self._apart == _APART:
            rows = self._rows / np.sqrt(self._scales)[:, None]
            self._inverse = _blas().dsyrk(-1.0, rows, beta=1.0, c=self._inverse, trans=1, overwrite_c=1)
            self._apart = 0
        return scale

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state: the matrix's upper triangle, and the changes that are still apart, in arrays that do not grow with them."""
        return {
            "inverse": packed(self._inverse),
            "changes": self._rows.copy(),
            "change_scales": self._scales.copy(),
            "changes_apart": np.array([self._apart]),
        }

    def restore(self, size: int, arrays: dict[str, NDArray[Any]], ridge: float) -> None:
        """Go on from another's state. Raises `ValueError` where its parts do not fit together."""
        rows, scales = arrays["changes"], arrays["change_scales"]
        (apart,) = arrays["changes_apart"].tolist()
        if (rows.shape, scales.shape) != ((_APART, size), (_APART,)) or not np.isfinite(rows).all():
            raise ValueError(f"changes of shape {rows.shape} for an inverse of size {size}, or NaN in them")
        if not 0 <= apart < _APART or not (scales > 0).all():
            raise ValueError(f"{apart} changes of the inverse, or one without a positive scale")
        self.set(unpacked(arrays["inverse"], size), ridge)
        self._rows, self._scales, self._apart = rows.copy(), scales.copy(), apart

    def _set(self, inverse: NDArray[np.float64]) -> None:
        self._inverse = np.asfortranarray(inverse)
        self._rows, self._scales = np.zeros((_APART, len(inverse))), np.ones(_APART)
        self._apart = 0


def added_products(total: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle of ``total + rowsᵀ rows`` for rows (N, size); `total`, in Fortran's order, is overwritten."""
    return _blas().dsyrk(1.0, rows, beta=1.0, c=total, trans=1, overwrite_c=1)


def packed(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle of a matrix (size, size), row by row."""
    return matrix[np.triu_indices(len(matrix))]


def unpacked(triangle: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The matrix (size, size) of an upper triangle, zero below it. Raises `ValueError` for another size, or NaN."""
    if triangle.shape != (size * (size + 1) // 2,) or not np.isfinite(triangle).all():
        raise ValueError(f"a triangle of shape {triangle.shape} for size {size}, or NaN in it")
    matrix = np.zeros((size, size), order="F")
    matrix[np.triu_indices(size)] = triangle
    return matrix


@cache
def _blas() -> Any:
    """SciPy's BLAS, which takes the products of a symmetric matrix at half the work; imported when there is one."""
    from scipy.linalg import blas

    return blas
