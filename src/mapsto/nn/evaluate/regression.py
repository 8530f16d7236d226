"""How near answers come to values: root mean squared error, mean absolute error, and the share of variance explained.

``RMSE = √mean (ŷ − y)²``, ``MAE = mean |ŷ − y|``, ``R² = 1 − Σ (ŷ − y)² / Σ (y − ȳ)²``; intervals by the bootstrap over samples (Efron,
"Bootstrap Methods: Another Look at the Jackknife", 1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mapsto.kinds import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["regression_metrics"]

_DRAWS = 400


def regression_metrics(
    answers: NDArray[np.floating], values: NDArray[np.floating], unit: str = ""
) -> dict[str, Metric]:
    """``rmse``, ``mae``, ``r2``, ``bias`` (mean of answer less value), and ``rmse_of_mean``, of always answering the mean.

    Answers and values have shape (N,). Without spread in the values there is no ``r2``.

    >>> found = regression_metrics(np.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 3.0]))
    >>> [round(found[name].value, 3) for name in ("rmse", "mae", "r2", "bias")]
    [1.155, 0.667, -1.0, 0.667]
    """
    given, wanted = np.asarray(answers, np.float64), np.asarray(values, np.float64)
    n = len(wanted)
    generator = np.random.default_rng(0)
    chosen = np.concatenate([np.arange(n)[None], generator.integers(0, n, (_DRAWS, n))])
    found: dict[str, Metric] = {}
    drawn = np.array([_figures(given[rows], wanted[rows]) for rows in chosen])
    for place, name in enumerate(("rmse", "mae", "bias", "rmse_of_mean", "r2")):
        finite = drawn[1:, place][np.isfinite(drawn[1:, place])]
        if not np.isfinite(drawn[0, place]):
            continue
        low, high = np.percentile(finite, [2.5, 97.5]).tolist() if n > 1 and len(finite) else (None, None)
        half = None if low is None or high is None else (high - low) / 2
        of = "" if name == "r2" else unit
        found[name] = Metric(value=float(drawn[0, place]), unit=of, ci95=half, n=n, low=low, high=high)
    return found


def _figures(given: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, ...]:
    error = given - wanted
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    squares = float((error**2).sum())
    n = len(wanted)
    r2 = 1 - squares / spread if spread > 0 else float("nan")
    return (squares / n) ** 0.5, float(np.abs(error).mean()), float(error.mean()), (spread / n) ** 0.5, r2
