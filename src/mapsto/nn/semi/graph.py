"""A graph over features: each sample joined to its nearest neighbours by cosine, with weights that suit how dense its surroundings are.

``W_ij = exp(−(1 − cos(z_i, z_j)) / √(s_i s_j))`` between a sample and its k nearest, where s_i is the distance to the k-th (Zelnik-Manor
and Perona, "Self-Tuning Spectral Clustering", 2004); an edge counts whichever of the two ends has the other among its nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.adapt.ridge import rooted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["nearest", "neighbour_graph", "unit_rows"]

_CHUNK = 1024


def unit_rows(features: NDArray[Any]) -> NDArray[np.float32]:
    """Features (N, D) as directions: the roots of each row, divided by their length; float32.

    The root evens out the few large activations of an embedding, which would else decide every cosine.

    >>> unit_rows(np.array([[9.0, 16.0], [0.0, 4.0]])).round(2)
    array([[0.6, 0.8],
           [0. , 1. ]], dtype=float32)
    """
    rows = rooted(features.reshape(len(features), -1).astype(np.float32))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest(
    rows: NDArray[np.float32], among: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` most similar of `among` (M, D) to each of `rows` (N, D), both of length 1: places and cosines (N, count), best first."""
    places = np.empty((len(rows), count), np.int64)
    cosines = np.empty((len(rows), count), np.float32)
    for start in range(0, len(rows), _CHUNK):
        similar = rows[start : start + _CHUNK] @ among.T
        chosen = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similar, chosen, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        places[start : start + _CHUNK] = np.take_along_axis(chosen, order, 1)
        cosines[start : start + _CHUNK] = np.take_along_axis(values, order, 1)
    return places, cosines


def neighbour_graph(rows: NDArray[np.float32], neighbours: int) -> Any:
    """The symmetric weights of the graph, a sparse matrix (N, N) without a diagonal; rows (N, D) are of length 1.

    >>> graph = neighbour_graph(unit_rows(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])), 1)
    >>> (graph.toarray() > 0).astype(int)
    array([[0, 1, 0, 0],
           [1, 0, 0, 0],
           [0, 0, 0, 1],
           [0, 0, 1, 0]])
    """
    from scipy.sparse import csr_array

    count = len(rows)
    wanted = min(neighbours, count - 1)
    if wanted < 1:
        return csr_array((count, count), dtype=np.float64)
    places, cosines = nearest(rows, rows, wanted + 1)
    itself = places == np.arange(count)[:, None]
    itself[~itself.any(1), -1] = True  # among copies of a sample it may not find itself: then its farthest makes room
    places, cosines = places[~itself].reshape(count, wanted), cosines[~itself].reshape(count, wanted)
    distances = np.maximum(1.0 - cosines.astype(np.float64), 0.0)
    reach = np.maximum(distances[:, -1], 1e-9)
    weights = np.exp(-distances / np.sqrt(reach[:, None] * reach[places]))
    one_way = csr_array((weights.ravel(), (np.repeat(np.arange(count), wanted), places.ravel())), shape=(count, count))
    return one_way.maximum(one_way.T).tocsr()
