"""Labels spread from labelled samples to a pool along a graph of nearest neighbours, on features alone.

Propagation (Zhu and Ghahramani, "Learning from Labeled and Unlabeled Data with Label Propagation", 2002):
``F_U = (D_UU − W_UU)⁻¹ W_UL Y_L``; labels stay. Spreading (Zhou et al., "Learning with Local and Global Consistency", 2004):
``F = (I − α S)⁻¹ Y`` with ``S = D^−½ W D^−½``; labels may be overruled by their neighbours. Both are solved by conjugate gradients for all
classes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mapsto.nn.semi.graph import neighbour_graph, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Method", "Spreader", "propagated", "self_trained", "surest"]

Method: TypeAlias = Literal["propagation", "spreading"]

_TOLERANCE = 1e-6
_MOST_STEPS = 300


def propagated(
    features: NDArray[Any],
    labels: NDArray[Any],
    pool: NDArray[Any],
    classes: int,
    *,
    method: Method = "propagation",
    neighbours: int = 10,
    alpha: float = 0.99,
    balance: float = 1.0,
    rounds: int = 4,
) -> NDArray[np.float64]:
    """How much of each sample of the pool belongs to each class, shape (M, classes), each row summing to 1.

    Parameters
    ----------
    features, labels
        Of the labelled samples: (N, D), and class numbers (N,) or shares of classes (N, classes).
    pool
        Features (M, D) without labels.
    classes
        How many classes there are.
    method
        `propagation` or `spreading`.
    neighbours
        k of the graph.
    alpha
        Of spreading, 0 to 1: how much of its label a sample takes from its neighbours.
    balance
        0 to 1: how far the classes' masses over the pool are evened out to the same mass (1: wholly; 0: not at all).

    rounds
        Of `self_trained`; 1 spreads the labels once.

    A sample that no label reaches has equal shares.

    >>> left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> chain = np.array([[1.0, 0.1], [1.0, 0.2], [0.2, 1.0], [0.1, 1.0]])
    >>> propagated(np.concatenate([left, right]), np.array([0, 1]), chain, 2, neighbours=2).argmax(1)
    array([0, 0, 1, 1])
    """
    known = np.arange(len(features))
    spreader = Spreader(features, pool, classes, neighbours=neighbours)
    return self_trained(spreader, known, labels, rounds=rounds, method=method, alpha=alpha, balance=balance)


def self_trained(
    spreader: Spreader,
    known: NDArray[np.int64],
    labels: NDArray[Any],
    *,
    rounds: int,
    method: Method = "propagation",
    alpha: float = 0.99,
    balance: float = 1.0,
) -> NDArray[np.float64]:
    """Shares (M, K) after labels were spread `rounds` times: the surest of each class count as labelled in the next round.

    Before round r of R each class has r / R of its mass over the pool as its quota (class-balanced self-training: Zou et al., "Unsupervised
    Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training", 2018).
    """
    shares = spreader.shares(known, labels, method=method, alpha=alpha, balance=balance)
    hard = labels if labels.ndim == 1 else labels.argmax(1)
    for number in range(1, rounds):
        guessed = surest(shares, shares.sum(0) * number / rounds)
        taken = np.flatnonzero(guessed >= 0)
        places = np.concatenate([known, spreader.known + taken])
        given = np.concatenate([hard, guessed[taken]])
        shares = spreader.shares(places, given, method=method, alpha=alpha, balance=balance)
    return shares


def surest(
    shares: NDArray[np.float64], quotas: NDArray[np.float64], among: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """The class (M,) of each sample that is taken for one, −1 for the others: of each class, `quotas` (K,) of the largest margin.

    >>> surest(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), np.array([1.0, 1.0])).tolist()
    [0, -1, 1]
    """
    best = shares.argmax(1)
    ordered = np.sort(shares, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if shares.shape[1] > 1 else ordered[:, -1]
    if among is not None:
        margin = np.where(among, margin, 0.0)
    guessed = np.full(len(shares), -1)
    for label, quota in enumerate(np.ceil(quotas).astype(int).tolist()):
        members = np.flatnonzero((best == label) & (margin > 0))
        guessed[members[np.argsort(-margin[members], kind="stable")[:quota]]] = label
    return guessed


class Spreader:
    """The graph of labelled samples and a pool, made once; labels are spread from any of the labelled ones.

    Those that no label is given for are in the graph as the pool is. `known` and `pool` say how many there are of each.
    """

    def __init__(self, features: NDArray[Any], pool: NDArray[Any], classes: int, *, neighbours: int) -> None:
        self.known, self.pool, self._classes = len(features), len(pool), classes
        self._graph: Any = neighbour_graph(unit_rows(np.concatenate([features, pool])), neighbours)

    def shares(
        self, known: NDArray[np.int64], labels: NDArray[Any], *, method: Method, alpha: float, balance: float
    ) -> NDArray[np.float64]:
        """Shares (M, classes) of the pool, from samples at the places `known` (n,), of the labelled ones and the pool behind them.

        Their labels are class numbers (n,), or shares (n, k) of any k classes.
        """
        if not self.pool:
            return np.empty((0, self._classes if labels.ndim == 1 else labels.shape[1]))
        given = np.eye(self._classes)[labels] if labels.ndim == 1 else labels.astype(np.float64)
        given = given / np.maximum(given.sum(0), 1e-12)  # each class begins with a mass of 1, however many its examples
        smooth = method == "spreading"
        found = _spread(self._graph, given, known, alpha) if smooth else _propagate(self._graph, given, known)
        return _shares(found[self.known :], balance)


def _spread(graph: Any, given: NDArray[np.float64], known: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
    from scipy.sparse import diags_array

    inverse = diags_array(1.0 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12)))
    smooth = (inverse @ graph @ inverse).tocsr()
    begin = np.zeros((graph.shape[0], given.shape[1]))
    begin[known] = given
    return _solved(lambda x: x - alpha * (smooth @ x), begin)


def _propagate(graph: Any, given: NDArray[np.float64], known: NDArray[np.int64]) -> NDArray[np.float64]:
    """The harmonic function. A piece of the graph without a label has no equation of its own: it is kept solvable, and stays 0."""
    found = np.zeros((graph.shape[0], given.shape[1]))
    found[known] = given
    open_ = np.setdiff1d(np.arange(graph.shape[0]), known)
    rows = graph[open_]
    degrees = np.asarray(rows.sum(axis=1)).ravel() + 1e-9
    scale = 1.0 / np.sqrt(degrees)[:, None]  # symmetric and well conditioned: D^−½ (D − W) D^−½
    within, right = rows[:, open_], scale * (rows[:, known] @ given)
    found[open_] = scale * _solved(lambda x: x - scale * (within @ (scale * x)), right)
    return found


def _solved(
    apply: Callable[[NDArray[np.float64]], NDArray[np.float64]], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``A X = B`` by conjugate gradients, column by column but all at once; A is symmetric and positive definite."""
    x = np.zeros_like(right)
    residual = right.copy()
    direction = residual.copy()
    squared = (residual * residual).sum(0)
    enough = _TOLERANCE**2 * np.maximum(squared, 1e-300)
    for _ in range(_MOST_STEPS):
        if (squared <= enough).all():
            break
        image = apply(direction)
        step = squared / np.maximum((direction * image).sum(0), 1e-300)
        x += step * direction
        residual -= step * image
        before, squared = squared, (residual * residual).sum(0)
        direction = residual + squared / np.maximum(before, 1e-300) * direction
    return x


def _shares(found: NDArray[np.float64], balance: float) -> NDArray[np.float64]:
    """Rows that sum to 1, the classes' masses evened out."""
    scores = np.maximum(found, 0.0)
    masses = scores.sum(0)
    scores = scores / np.where(masses > 0, masses, 1.0) ** balance
    total = scores.sum(1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1.0), 1.0 / found.shape[1])
