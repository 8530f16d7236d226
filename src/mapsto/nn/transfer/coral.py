"""Correlation alignment: features moved so that their mean and covariance are those of another domain, and the distance of two covariances.

``a(z) = (z − μ_s) C_s^{-1/2} C_t^{1/2} + μ_t`` (Sun, Feng and Saenko, "Return of Frustratingly Easy Domain Adaptation", 2016), with
covariances shrunk towards a multiple of the identity by as much as the samples ask for (Ledoit and Wolf, "A Well-Conditioned Estimator for
Large-Dimensional Covariance Matrices", 2004). As a loss ``‖C_s − C_t‖² / 4D²`` (Sun and Saenko, "Deep CORAL", 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Alignment", "aligning", "covariance_distance"]

_LEAST = 1e-6
"""No direction is enlarged as if its variance were less than this share of the largest."""


class Alignment(NamedTuple):
    """A linear change of features."""

    matrix: NDArray[np.float64]
    """(D, D), for features from the right."""
    shift: NDArray[np.float64]
    """(D,)."""

    def __call__(self, features: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(features, np.float64) @ self.matrix + self.shift


def aligning(given: NDArray[Any], wanted: NDArray[Any]) -> Alignment:
    """What gives features like `given` (N, D) the mean and the covariance of `wanted` (M, D).

    >>> rng = np.random.default_rng(0)
    >>> given, wanted = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 2)) @ [[2.0, 1.0], [0.0, 1.0]] + 3
    >>> moved = aligning(given, wanted)(given)
    >>> np.abs(np.cov(moved.T) - np.cov(wanted.T)).max() < 0.05, moved.mean(0).round(1).tolist()
    (np.True_, [3.0, 3.0])
    """
    mean_given, root_given = _moments(given)
    mean_wanted, root_wanted = _moments(wanted)
    matrix = root_given.power(-0.5) @ root_wanted.power(0.5)
    return Alignment(matrix, mean_wanted - mean_given @ matrix)


def covariance_distance(source: Tensor, target: Tensor) -> Tensor:
    """``‖C_s − C_t‖² / 4D²`` of features (N, D) and (M, D), a scalar.

    >>> import torch
    >>> float(covariance_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[-2.0], [2.0]])))
    9.0
    """
    apart = _covariance(source) - _covariance(target)
    return apart.square().sum() / (4 * source.shape[1] ** 2)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / max(len(features) - 1, 1)


class _Spectrum(NamedTuple):
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]

    def power(self, exponent: float) -> NDArray[np.float64]:
        return (self.vectors * self.values**exponent) @ self.vectors.T


def _moments(features: NDArray[Any]) -> tuple[NDArray[np.float64], _Spectrum]:
    from sklearn.covariance import ledoit_wolf

    rows = np.asarray(features, np.float64)
    covariance: NDArray[np.float64] = ledoit_wolf(rows)[0]
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    floor = _LEAST * max(float(values[-1]), np.finfo(np.float64).tiny)
    return rows.mean(0), _Spectrum(np.maximum(values, floor), vectors)
