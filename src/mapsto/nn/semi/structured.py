"""Self-training for classes that are hard to tell apart: the group of a sample is guessed first, then its class within that group.

A round spreads two sets of labels along the graph of nearest neighbours, groups and classes. A sample of the pool is taken for a class
where both agree on its group; of these the surest of each class, no more than its quota, count as labelled in the next round. Quotas grow
from round to round until each class may have its equal share of the pool. In the end ``P(class) = P(group) · P(class | group)``
(self-training: Scudder, "Probability of Error of Some Adaptive Pattern-Recognition Machines", 1965; class-balanced quotas: Zou et al.,
"Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training", 2018; hierarchies of classes: Garg et al.,
"HierMatch: Leveraging Label Hierarchies for Improving Semi-Supervised Learning", 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.semi.graph import unit_rows
from mapsto.nn.semi.propagation import surest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.semi.propagation import Method, Spreader

__all__ = ["believed", "groups_by_means", "structured"]


def structured(
    spreader: Spreader,
    known: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    rounds: int = 4,
    method: Method = "propagation",
    alpha: float = 0.99,
    levels: bool = False,
) -> NDArray[np.float64]:
    """Shares (M, K) of the pool.

    Parameters
    ----------
    spreader
        The graph of labelled samples and the pool.
    known, labels
        Places of the labelled samples whose labels are known, and these, (n,).
    groups
        The group of each class, (K,), from 0.
    rounds
        How often labels are spread; 1: once, without self-training.
    levels
        Whether samples that are taken for no class, but are among the surest of a group, count as labelled where groups are spread.
    """
    classes, count = len(groups), int(groups.max()) + 1
    of_group = np.eye(count)[groups]  # (K, G)
    equal = spreader.pool / classes
    guessed, guessed_groups = np.full(spreader.pool, -1), np.full(spreader.pool, -1)
    shares = np.empty((spreader.pool, classes))
    for number in range(rounds):
        taken = np.flatnonzero(guessed >= 0)
        places = np.concatenate([known, spreader.known + taken])
        given = np.concatenate([labels, guessed[taken]])
        flat = spreader.shares(places, given, method=method, alpha=alpha, balance=1.0)
        # Groups of many classes are as much more frequent: their masses are not evened out, their classes' are.
        group = flat @ of_group
        whole = np.flatnonzero((guessed_groups >= 0) & (guessed < 0))
        group_places = np.concatenate([places, spreader.known + whole])
        group_given = np.concatenate([of_group[given], np.eye(count)[guessed_groups[whole]]])
        spread = spreader.shares(group_places, group_given, method=method, alpha=alpha, balance=0.0)
        spread = spread * (of_group.sum(0) / np.maximum(spread.sum(0), 1e-12))
        spread = spread / np.maximum(spread.sum(1, keepdims=True), 1e-12)
        within = flat / np.maximum(group @ of_group.T, 1e-12)
        shares = (spread @ of_group.T) * within
        agreed = spread.argmax(1) == groups[flat.argmax(1)]
        quota = equal * (number + 1) / rounds
        if levels:
            guessed_groups = surest(spread, quota * of_group.sum(0))
        guessed = surest(shares, np.full(classes, quota), agreed)
    total = shares.sum(1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / classes)


def believed(shares: NDArray[np.float64], groups: NDArray[np.int64], sure: float) -> NDArray[np.float64]:
    """What a head learns of samples with `shares` (M, K), at the level of the tree at which they are sure, rows that sum to 1.

    The class alone where its share is at least `sure`; else, where that of a group is, the shares within this group; else all shares.

    >>> believed(np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.4, 0.2, 0.4]]), np.array([0, 0, 1]), 0.7).round(3).tolist()
    [[1.0, 0.0, 0.0], [0.625, 0.375, 0.0], [0.4, 0.2, 0.4]]
    """
    of_group = np.eye(int(groups.max()) + 1)[groups]  # (K, G)
    mass = shares @ of_group
    within = shares * of_group[:, mass.argmax(1)].T
    within = within / np.maximum(within.sum(1, keepdims=True), 1e-12)
    kept = np.where(mass.max(1, keepdims=True) >= sure, within, shares)
    return np.where(shares.max(1, keepdims=True) >= sure, np.eye(len(groups))[shares.argmax(1)], kept)


def groups_by_means(features: NDArray[Any], labels: NDArray[np.int64], classes: int, count: int) -> NDArray[np.int64]:
    """The group (K,) of each class: class means that lie near each other, by angle, in one of `count` groups (Ward's method).

    >>> means = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> groups_by_means(means, np.arange(4), 4, 2).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    given = np.eye(classes)[labels]
    means = unit_rows(given.T @ unit_rows(features) / np.maximum(given.sum(0), 1e-12)[:, None])
    found: NDArray[Any] = fcluster(linkage(means, "ward"), min(count, classes), criterion="maxclust")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)
