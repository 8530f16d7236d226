"""An event's raw columns as a few numbers of fixed length, for what chooses a member by them: each column is hashed to one of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Block

__all__ = ["Context", "number_in"]


class Context:
    """Numbers are scaled by their mean and standard deviation so far, and cut off at 3; the whole is no longer than 1, beside a bias.

    Parameters
    ----------
    length
        Of a context, the bias among it.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._scales: dict[str, list[float]] = {}
        """Of each column of numbers: how many there were, their mean, and the sum of their squared distances from it."""

    def of(self, block: Block, event: int, *, learn: bool) -> NDArray[np.float64]:
        """The context (length,) of an event; scales move where it learns."""
        found = np.zeros(self._length)
        for name, column in block.x.items():
            value = column[event]
            if column.ndim > 1:
                values = np.asarray(value, np.float64).reshape(-1)
                places = 1 + np.arange(len(values)) % (self._length - 1)
                np.add.at(found, places, np.nan_to_num(values) / max(float(np.sqrt(len(values))), 1.0))
                continue
            number = number_in(value)  # by itself: one word among them makes a block's numbers texts
            if number is None:
                self._add(found, f"{name}={value}", 1.0)
            elif abs(number) < 1e100:
                self._add(found, name, self._scaled(name, number, learn=learn))
        found /= max(1.0, float(np.sqrt((found * found).sum())))
        found[0] = 1.0
        return found

    def _add(self, found: NDArray[np.float64], name: str, value: float) -> None:
        number = zlib.crc32(name.encode())
        found[1 + number % (self._length - 1)] += value if number >> 16 & 1 else -value

    def _scaled(self, name: str, number: float, *, learn: bool) -> float:
        count, mean, spread = self._scales.get(name, (0.0, 0.0, 0.0))
        if learn:
            count += 1.0
            away = number - mean
            mean += away / count
            spread += away * (number - mean)
            self._scales[name] = [count, mean, spread]
        if spread <= 0:
            return 0.0
        return max(-3.0, min(3.0, (number - mean) / (spread / count) ** 0.5))

    def values(self) -> dict[str, Any]:
        """The state."""
        return {name: list(each) for name, each in self._scales.items()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` where it is none."""
        self._scales = {str(name): [float(part) for part in each] for name, each in values.items()}
        if any(len(each) != 3 or not np.isfinite(each).all() for each in self._scales.values()):
            raise ValueError("a column's scale is no three numbers")


def number_in(value: Any) -> float | None:
    """The number that a cell holds, NaN where it is empty; None where it holds a word.

    >>> number_in(0.5), number_in("0.50"), number_in("red"), number_in("")
    (0.5, 0.5, None, nan)
    """
    if value == "":
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return None
