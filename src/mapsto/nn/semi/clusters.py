"""Classes that nobody named: groups of samples by the angles between their features, how many there are, and how well they match known
classes.

Spherical k-means: each sample to the centre of the largest cosine, each centre the mean direction of its samples (Dhillon and Modha,
"Concept Decompositions for Large Sparse Text Data using Clustering", 2001), from the best of several k-means++ starts (Arthur and
Vassilvitskii, 2007). How many there are is read off mean silhouettes (Rousseeuw, "Silhouettes", 1987) on principal components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.nn.semi.graph import unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Match", "clustered", "estimated_count", "matched"]

_ROUNDS = 100
_JUDGED = 1500
"""Samples that silhouettes are computed of; all pairs among them are compared."""
_COMPONENTS = 64
_ALIKE = 0.9
"""Silhouettes from this share of the largest on count as alike."""


class Match(NamedTuple):
    """How groups match classes."""

    accuracy: float
    """Share of samples whose group stands for their class, each group for one class at most (Hungarian method), 0 to 1."""
    nmi: float
    """Normalised mutual information (arithmetic mean), 0 to 1."""
    classes: tuple[int, ...]
    """The class that each group stands for; −1 for none."""


def clustered(
    features: NDArray[Any], count: int, rng: np.random.Generator, *, starts: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The group (N,) of each sample, features (N, D), and the groups' directions (count, D), the largest group first.

    >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.05], [0.0, 1.0], [0.1, 1.0]])
    >>> clustered(rows, 2, np.random.default_rng(0))[0].tolist()
    [0, 0, 0, 1, 1]
    """
    rows = unit_rows(features)
    best: tuple[float, NDArray[np.int64], NDArray[np.float32]] | None = None
    for _ in range(starts):
        centres = _seeds(rows, count, rng)
        label = np.full(len(rows), -1)
        for _ in range(_ROUNDS):
            cosines = rows @ centres.T
            before, label = label, cosines.argmax(1)
            if (before == label).all():
                break
            sums = np.eye(count, dtype=np.float32)[label].T @ rows
            there = np.linalg.norm(sums, axis=1, keepdims=True)
            centres = np.where(there > 1e-9, sums / np.maximum(there, 1e-9), centres)
        near = float((rows @ centres.T).max(1).sum())
        if best is None or near > best[0]:
            best = near, label, centres
    _, label, centres = best  # type: ignore[misc]
    order = np.argsort(-np.bincount(label, minlength=count), kind="stable")
    return np.argsort(order)[label], centres[order].astype(np.float64)


def estimated_count(
    features: NDArray[Any], candidates: Sequence[int], rng: np.random.Generator
) -> tuple[int, dict[int, float]]:
    """How many groups there seem to be, one of `candidates`, and the mean silhouette of each.

    It is the most of those whose silhouette is within a tenth of the largest: coarse groups, such as animals and vehicles, are often as
    distinct as the classes in them.

    >>> centres = np.repeat(np.eye(4), 20, axis=0)
    >>> rows = np.abs(centres + 0.05 * np.random.default_rng(0).normal(size=centres.shape))
    >>> estimated_count(rows, range(2, 8), np.random.default_rng(0))[0]
    4
    """
    from sklearn.metrics import silhouette_score

    chosen = rng.permutation(len(features))[:_JUDGED]
    rows = unit_rows(features)[chosen]
    parts = min(_COMPONENTS, rows.shape[1], len(rows) - 1)
    judged = _projected(rows, parts)
    found: dict[int, float] = {}
    for count in candidates:
        label, _ = clustered(judged, count, rng, starts=2)
        found[count] = float(silhouette_score(judged, label, metric="cosine")) if len(np.unique(label)) > 1 else -1.0
    enough = _ALIKE * max(found.values())
    return max(count for count, value in found.items() if value >= enough or value == max(found.values())), found


def matched(group: NDArray[np.int64], labels: NDArray[np.int64]) -> Match:
    """How groups (N,) match true classes (N,).

    >>> match = matched(np.array([1, 1, 0, 0, 0, 2]), np.array([5, 5, 3, 3, 5, 3]))
    >>> round(match.accuracy, 3), match.classes
    (0.667, (3, 5, -1))
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score

    groups, classes = int(group.max()) + 1, int(labels.max()) + 1
    counts = np.bincount(group * classes + labels, minlength=groups * classes).reshape(groups, classes)
    rows, columns = linear_sum_assignment(-counts)
    stands = np.full(groups, -1)
    stands[rows] = np.where(counts[rows, columns] > 0, columns, -1)
    return Match(
        accuracy=float(counts[rows, columns].sum() / len(labels)),
        nmi=float(normalized_mutual_info_score(labels, group)),
        classes=tuple(stands.tolist()),
    )


def _projected(rows: NDArray[np.float32], parts: int) -> NDArray[np.float32]:
    """Principal components (N, parts), with the spread that they have."""
    centred = rows - rows.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    return (left * values)[:, :parts]


def _seeds(rows: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """k-means++: each next centre is drawn by how far, squared, samples are from the nearest so far."""
    chosen = [int(rng.integers(len(rows)))]
    distance = 2 - 2 * (rows @ rows[chosen[0]])
    while len(chosen) < count:
        weights = np.maximum(distance, 0.0).astype(np.float64)
        total = weights.sum()
        place = int(rng.choice(len(rows), p=weights / total)) if total > 0 else int(rng.integers(len(rows)))
        chosen.append(place)
        distance = np.minimum(distance, 2 - 2 * (rows @ rows[place]))
    return rows[chosen]
