"""Whether scores point at what an answer rests on: take parts away from the highest score down, or bring them back in that order.

Deletion: the mean of the probability while parts go, ``∫₀¹ p(x without the highest share t) dt``; low is good. Insertion: the same while
parts come to a sample in which everything is hidden; high is good (Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for
Explanation of Black-box Models", 2018). Both are compared with random orders of the same sample, as what hides parts changes an answer by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto_runtime.parts import Parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Curves", "area", "curves", "shares"]


class Curves(NamedTuple):
    """Probabilities along the way, each of shape (points,), from the share 0 to 1 of the parts."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]


def shares(points: int) -> NDArray[np.float64]:
    """Shares of the parts at which is measured."""
    return np.linspace(0, 1, points)


def curves(
    parts: Parts, order: NDArray[np.int64], probability: Callable[[NDArray[Any]], NDArray[np.float64]], *, points: int
) -> Curves:
    """Both curves of one sample.

    Parameters
    ----------
    parts
        The sample; it decides what takes a part's place.
    order
        Places of the parts, the highest score first, (parts,).
    probability
        Inputs (M, ...) → probability of what is explained, (M,).
    points
        Points of a curve, both ends among them.

    >>> from mapsto_runtime.parts import Columns
    >>> row = Columns(row=np.array([1.0, 0.0]))
    >>> found = curves(row, np.array([0, 1]), lambda rows: rows[:, 0], points=3)
    >>> found.deletion.tolist(), found.insertion.tolist()
    ([1.0, 0.0, 0.0], [0.0, 1.0, 1.0])
    """
    counts = np.round(shares(points) * len(order)).astype(int)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    gone = rank < counts[:, None]
    found = probability(parts.without(np.concatenate([gone, ~gone])))
    return Curves(found[:points], found[points:])


def area(curve: NDArray[np.float64]) -> float:
    """The mean of a curve, by trapezia.

    >>> area(np.array([1.0, 0.0, 0.0]))
    0.25
    """
    return float((curve[:-1] + curve[1:]).mean() / 2)
