"""Ridge regression on labelled examples and a pool whose labels are guesses, for many choices of these guesses on the same features.

``min_W Σ_L ‖W z_i + b − y_i‖² + ω Σ_U ‖W z_u + b − ŷ_u‖² + λ ‖W‖²``. The matrix ``Z_Uᵀ Z_U`` is made once: folds of cross-validation
differ in the labelled rows and in ŷ alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PENALTY", "WEIGHT", "PoolRidge"]

WEIGHT, PENALTY = 0.1, 0.3
"""ω, and λ in units of the mean squared length of a centred feature vector. Guessed labels are wrong more often than their fit shows, so
that leaving out one at a time would choose too small a penalty. Chosen on training images of CIFAR-10 and CIFAR-100 with 1 and 5 labels a
class, apart from those that results are given for."""


class PoolRidge:
    """Heads on labelled features and one pool.

    Parameters
    ----------
    pool
        Features (M, D), as the head takes them.
    weight
        ω: how much a sample of the pool counts beside a labelled one.
    """

    def __init__(self, pool: NDArray[Any], weight: float = WEIGHT) -> None:
        self._pool, self._weight = np.asarray(pool, np.float64), weight
        self._origin = self._pool.mean(0) if len(pool) else np.zeros(pool.shape[1])
        self._pool = self._pool - self._origin  # the same for every fold; keeps the sums of squares well conditioned
        self._gram = self._pool.T @ self._pool

    def fit(
        self, features: NDArray[Any], targets: NDArray[Any], shares: NDArray[Any], penalty: float = PENALTY
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (K, D) and bias (K,) from labelled features (N, D), their targets (N, K) and the pool's shares (M, K).

        >>> ridge = PoolRidge(np.array([[0.0], [2.0]]), weight=1.0)
        >>> weight, bias = ridge.fit(np.array([[1.0]]), np.array([[0.5]]), np.array([[0.0], [1.0]]), penalty=1e-9)
        >>> weight.round(6).tolist(), (bias.round(6) + 0.0).tolist()
        ([[0.5]], [0.0])
        """
        from scipy.linalg import solve

        rows = np.asarray(features, np.float64) - self._origin
        omega = self._weight
        total = len(rows) + omega * len(self._pool)
        mean = (rows.sum(0) + omega * self._pool.sum(0)) / total
        middle = (targets.sum(0) + omega * shares.sum(0)) / total
        gram = rows.T @ rows + omega * self._gram - total * np.outer(mean, mean)
        right = rows.T @ targets + omega * (self._pool.T @ shares) - total * np.outer(mean, middle)
        size = float(np.trace(gram)) / total or 1.0
        gram[np.diag_indices_from(gram)] += penalty * size
        weight = solve(gram, right, assume_a="pos").T
        return weight, middle - weight @ (mean + self._origin)
