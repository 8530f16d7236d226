"""Choosing samples class by class, deterministic in the seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_of_each_class", "share_of_each_class"]


def first_of_each_class(labels: NDArray[Any], per_class: int | dict[int, int], seed: int) -> NDArray[np.bool_]:
    """Which samples are among the first of their class in an order drawn from (seed, class).

    What is chosen with a smaller number is among what is chosen with a larger one; a class does not depend on the
    others.

    >>> few = first_of_each_class(np.array([0, 1, 0, 1, 0]), 1, seed=0)
    >>> more = first_of_each_class(np.array([0, 1, 0, 1, 0]), 2, seed=0)
    >>> int(few.sum()), int(more.sum()), bool((more | ~few).all())
    (2, 4, True)
    """
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels).tolist():
        there = np.flatnonzero(labels == label)
        count = per_class if isinstance(per_class, int) else per_class[label]
        chosen[np.random.default_rng([seed, label]).permutation(there)[:count]] = True
    return chosen


def share_of_each_class(labels: NDArray[Any], total: int, seed: int) -> NDArray[np.bool_]:
    """Which samples make up a stratified choice of `total`: each class by its share, by the largest remainder."""
    names, counts = np.unique(labels, return_counts=True)
    exact = counts * (total / max(len(labels), 1))
    floors = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - floors), kind="stable")
    floors[order[: total - int(floors.sum())]] += 1
    return first_of_each_class(labels, dict(zip(names.tolist(), floors.tolist(), strict=True)), seed)
