"""Choosing samples class by class, deterministic in the seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_of_each_class", "fold_of_each", "share_of_each_class"]


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


def fold_of_each(labels: NDArray[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each sample, 0 to folds - 1: every class is dealt out in an order drawn from (seed, class).

    >>> fold_of_each(np.array([0, 0, 0, 1, 1, 1]), 3, seed=0).tolist()[:3] == [0, 1, 2]
    False
    >>> sorted(fold_of_each(np.array([0, 0, 0, 1, 1, 1]), 3, seed=0).tolist())
    [0, 0, 1, 1, 2, 2]
    """
    fold = np.zeros(len(labels), np.int64)
    for label in np.unique(labels).tolist():
        there = np.flatnonzero(labels == label)
        fold[np.random.default_rng([seed, label]).permutation(there)] = np.arange(len(there)) % folds
    return fold
