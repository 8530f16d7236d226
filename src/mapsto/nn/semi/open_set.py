"""Which samples of a pool are of none of the labelled classes: those farther from every labelled example than these are from each other.

A sample's distance is that to its nearest labelled example, by angle. Each labelled example has one too, to its nearest other; the share
of those that are as far or farther, ``p = (1 + #{d_i ≥ d}) / (N + 1)``, is at most α for a share α of samples of the same kind (conformal
p-values: Bates et al., "Testing for Outliers with Conformal p-values", 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.semi.graph import nearest, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["ALPHA", "far_from_all", "kept_of"]

ALPHA = 0.05
"""Share of samples of the labelled classes that is taken for foreign; from 19 labelled examples on anything can be."""


def far_from_all(features: NDArray[Any], pool: NDArray[Any], alpha: float = ALPHA) -> NDArray[np.bool_]:
    """Whether each sample of the pool, features (M, D), is of none of the classes of labelled features (N, D); shape (M,).

    >>> near = np.random.default_rng(0).normal([5.0, 0.0, 0.0], 0.1, (40, 3))
    >>> far_from_all(near[:30], np.concatenate([near[30:], [[0.0, 5.0, 0.0]]])).nonzero()[0].tolist()
    [10]
    """
    if len(features) < 2 or not len(pool):
        return np.zeros(len(pool), np.bool_)
    rows = unit_rows(np.concatenate([features, pool]))
    known, asked = rows[: len(features)], rows[len(features) :]
    calibration = np.sort(
        nearest(known, known, 2)[1][:, 1]
    )  # cosine to the nearest other: the nearest of all is itself
    as_far = np.searchsorted(calibration, nearest(asked, known, 1)[1][:, 0], side="right")
    return (1 + as_far) / (len(known) + 1) <= alpha


def kept_of(features: NDArray[Any], pool: NDArray[Any], ctx: Context) -> NDArray[np.int64]:
    """The places (n,) of the pool's samples that may be of the labelled classes; says how many others are left out."""
    far = far_from_all(features, pool)
    count = int(far.sum())
    if count:
        ctx.note(
            f"{count} of {len(pool)} samples of the pool are left out as of none of the classes: they are farther from every labelled "
            f"example than {100 * (1 - ALPHA):.0f} % of these are from each other (of samples of the classes about {ALPHA * len(pool):.0f} "
            "would be); set open_set: keep to use them"
        )
    return np.flatnonzero(~far)
