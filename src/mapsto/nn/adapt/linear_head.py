"""A fitted linear head as a value: features in, scores out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt.ridge import rooted

__all__ = ["LinearHead"]


class LinearHead(NamedTuple):
    """Called with features (M, D), as they come, it gives scores (M, K).

    >>> LinearHead(np.array([[1.0]]), np.array([0.5]), root=True)(np.array([[4.0]])).round(3)
    array([[2.5]])
    """

    weight: NDArray[np.float64]
    """(K, D)."""
    bias: NDArray[np.float64]
    """(K,)."""
    root: bool = False
    """Whether the weight is for the root of the features."""

    def __call__(self, features: NDArray[Any]) -> NDArray[np.float64]:
        rows = np.asarray(features, np.float64)
        return (rooted(rows) if self.root else rows) @ self.weight.T + self.bias
