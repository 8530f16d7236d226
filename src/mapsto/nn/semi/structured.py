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

__all__ = ["groups_by_means", "structured"]


def structured(
    spreader: Spreader,
    known: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    rounds: int = 4,
    method: Method = "propagation",
    alpha: float = 0.99,
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
    """
    classes, count = len(groups), int(groups.max()) + 1
    of_group = np.eye(count)[groups]  # (K, G)
    equal = spreader.pool / classes
    guessed = np.full(spreader.pool, -1)
    shares = np.empty((spreader.pool, classes))
    for number in range(rounds):
        taken = np.flatnonzero(guessed >= 0)
        places = np.concatenate([known, spreader.known + taken])
        given = np.concatenate([labels, guessed[taken]])
        flat = spreader.shares(places, given, method=method, alpha=alpha, balance=1.0)
        # Groups of many classes are as much more frequent: their masses are not evened out, their classes' are.
        group = flat @ of_group
        spread = spreader.shares(places, of_group[given], method=method, alpha=alpha, balance=0.0)
        spread = spread * (of_group.sum(0) / np.maximum(spread.sum(0), 1e-12))
        spread = spread / np.maximum(spread.sum(1, keepdims=True), 1e-12)
        within = flat / np.maximum(group @ of_group.T, 1e-12)
        shares = (spread @ of_group.T) * within
        agreed = spread.argmax(1) == groups[flat.argmax(1)]
        guessed = surest(shares, np.full(classes, equal * (number + 1) / rounds), agreed)
    total = shares.sum(1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1.0), 1.0 / classes)


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
