"""Which samples of a pool are of none of the labelled classes: those farther from every class than labelled examples are.

A sample's distance is the angle to the nearest of the classes' mean directions. Each labelled example has one too, to the means without
itself; the share of examples that are as far or farther, ``p = (1 + #{d_i ≥ d}) / (N + 1)``, is at most α for about a share α of samples
of the classes (conformal p-values: Bates et al., "Testing for Outliers with Conformal p-values", 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.semi.graph import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["ALPHA", "far_from_all", "kept_of"]

ALPHA = 0.05
"""Share of samples of the labelled classes that is taken for foreign; from 19 examples on anything can be."""


def far_from_all(
    features: NDArray[Any], labels: NDArray[np.int64], pool: NDArray[Any], alpha: float = ALPHA
) -> NDArray[np.bool_]:
    """Whether each sample of the pool is of none of the classes, shape (M,).

    Parameters
    ----------
    features, labels
        Of the labelled examples: (N, D) and (N,). An example that is the only one of its class says nothing of how far is usual.
    pool
        Features (M, D).

    >>> near = np.random.default_rng(0).normal([5.0, 4.0, 3.0], 0.1, (40, 3))
    >>> pool = np.concatenate([near[30:], [[0.0, 5.0, 1.0]]])
    >>> far_from_all(near[:30], np.zeros(30, int), pool).nonzero()[0].tolist()
    [10]
    """
    judged = np.bincount(labels)[labels] > 1
    if not judged.any() or not len(pool):
        return np.zeros(len(pool), np.bool_)
    rows = unit_rows(np.concatenate([features, pool]))
    known, asked = rows[: len(features)], rows[len(features) :]
    sums = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels].T @ known
    means = _directions(sums[np.bincount(labels) > 0])
    cosines = known @ _directions(sums).T
    cosines[np.arange(len(known)), labels] = (known * _directions(sums[labels] - known)).sum(1)
    usual = np.sort(cosines[judged].max(1))
    as_far = np.searchsorted(usual, (asked @ means.T).max(1), side="right")
    return (1 + as_far) / (len(usual) + 1) <= alpha


def kept_of(features: NDArray[Any], labels: NDArray[np.int64], pool: NDArray[Any], ctx: Context) -> NDArray[np.int64]:
    """The places (n,) of the pool's samples that may be of the labelled classes; says how many others are left out."""
    far = far_from_all(features, labels, pool)
    count = int(far.sum())
    if count:
        ctx.note(
            f"{count} of {len(pool)} samples of the pool are left out as of none of the classes: they are farther from each than "
            f"{100 * (1 - ALPHA):.0f} % of the labelled examples (of samples of the classes about {ALPHA * len(pool):.0f} would be); set "
            "open_set: keep to use them"
        )
    return np.flatnonzero(~far)


def _directions(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
