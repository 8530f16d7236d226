"""Classes of a pool by optimal transport: as many samples to each class as to any other, each to a centre near it, and the centres moved.

Features are evened out by a power transform ``z = (f + ε)^β / ‖(f + ε)^β‖`` and centred. Then, in turn: shares ``P`` of the pool by
Sinkhorn's iterations from ``exp(−λ ‖z_u − c_k‖²)`` so that each row sums to 1 and each class has the same mass, and ``c ← c + a
(mean_P(z) − c)``, the mean taken with the labelled examples (Hu, Gripon and Pateux, "Leveraging the Feature Distribution in
Transfer-based Few-Shot Learning", 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["powered", "sinkhorn", "transported"]

_EPSILON = 1e-6


def powered(features: NDArray[Any], power: float) -> NDArray[np.float64]:
    """Features (N, D) after the power transform, each of length 1; the sign of negative ones is kept."""
    raised = np.sign(features) * (np.abs(features).astype(np.float64) + _EPSILON) ** power
    return raised / np.maximum(np.linalg.norm(raised, axis=1, keepdims=True), 1e-12)


def transported(
    features: NDArray[Any],
    labels: NDArray[Any],
    pool: NDArray[Any],
    classes: int,
    *,
    power: float = 0.5,
    sharpness: float = 10.0,
    step: float = 0.2,
    rounds: int = 20,
) -> NDArray[np.float64]:
    """Shares (M, classes) of a pool's features (M, D), from labelled features (N, D) with class numbers (N,), each class among them.

    `power` is β, `sharpness` λ and `step` a of the module's text.

    >>> pool = np.array([[1.0, 0.2], [1.0, 0.1], [0.1, 1.0], [0.2, 1.0]])
    >>> transported(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]), pool, 2).argmax(1)
    array([0, 0, 1, 1])
    """
    if not len(pool):
        return np.empty((0, classes))
    rows = powered(np.concatenate([features, pool]), power)
    count = len(features)
    rows[:count] -= rows[:count].mean(0)
    rows[count:] -= rows[count:].mean(0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    known, asked = rows[:count], rows[count:]
    given = np.eye(classes)[labels]
    sums, counts = given.T @ known, given.sum(0)[:, None]
    centres = sums / np.maximum(counts, 1e-12)
    shares = np.full((len(asked), classes), 1.0 / classes)
    lengths = np.square(asked).sum(1)[:, None]
    for _ in range(rounds):
        distances = lengths - 2 * asked @ centres.T + np.square(centres).sum(1)
        shares = sinkhorn(-sharpness * distances)
        means = (sums + shares.T @ asked) / (counts + shares.sum(0)[:, None])
        centres = centres + step * (means - centres)
    return shares


def sinkhorn(logits: NDArray[np.float64], *, tolerance: float = 1e-3, most: int = 100) -> NDArray[np.float64]:
    """``exp(logits)``, shape (M, K), scaled by rows and columns until each row sums to 1 and each column to M / K (Cuturi, 2013).

    >>> sinkhorn(np.array([[1.0, 0.0], [1.0, 0.0]])).round(3).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    mass = np.exp(logits - logits.max(1, keepdims=True))
    wanted = len(logits) / logits.shape[1]
    for _ in range(most):
        mass *= wanted / np.maximum(mass.sum(0), 1e-300)
        rows = mass.sum(1, keepdims=True)
        mass /= np.maximum(rows, 1e-300)
        if np.abs(rows - 1).max() < tolerance:
            break
    return mass
