"""Ways to a head that need a pool, as `mapsto.nn.adapt.choice_of_head` judges them beside those that do not.

The pool's labels are guessed from features, then a ridge regression is fitted to both on the root of the features. The graph, or the sums
over the pool, are made once for all folds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mapsto.nn.adapt import ridge
from mapsto.nn.adapt.choice_of_head import WAYS, Prepared, Way
from mapsto.nn.adapt.linear_head import LinearHead
from mapsto.nn.adapt.logistic import normalised
from mapsto.nn.semi.propagation import Spreader, self_trained
from mapsto.nn.semi.pt_map import transported
from mapsto.nn.semi.ridge import PoolRidge

__all__ = ["ALL_WAYS", "POOL_WAYS"]

_Guess: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Places of the examples whose labels are known → shares (M, K) of the pool."""
_NEIGHBOURS, _ROUNDS = 10, 4
"""Of the graph, and how often labels are spread: as `semi.propagation` has them."""
WEIGHT, PENALTY = 0.3, 1.0
"""How much a sample of the pool counts beside a labelled one, and the penalty, where the regression sees features of length 1."""


def _propagation(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    spreader = Spreader(features, pool, classes, neighbours=_NEIGHBOURS)

    def guess(places: NDArray[np.int64]) -> NDArray[np.float64]:
        return self_trained(spreader, places, labels[places], rounds=_ROUNDS)

    return _ridge_on(features, labels, pool, classes, guess)


def _pt_map(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    def guess(places: NDArray[np.int64]) -> NDArray[np.float64]:
        return transported(features[places], labels[places], pool, classes)

    return _ridge_on(features, labels, pool, classes, guess)


def _ridge_on(
    features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int, guess: _Guess
) -> Prepared:
    rows, targets = ridge.rooted(features), np.eye(classes)
    both = PoolRidge(normalised(ridge.rooted(pool)), WEIGHT)

    def fit(places: NDArray[np.int64]) -> LinearHead:
        guessed = targets[guess(places).argmax(1)]
        own = rows[places]
        weight, bias = both.fit(normalised(own), targets[labels[places]], guessed, PENALTY)
        length = float(np.linalg.norm(own, axis=1).mean()) or 1.0
        return LinearHead(weight * ridge.SCALE / length, bias * ridge.SCALE, root=True)

    return fit


POOL_WAYS: tuple[Way, ...] = (
    Way("propagation, ridge", _propagation, pool=True),
    Way("pt_map, ridge", _pt_map, pool=True),
)
ALL_WAYS: tuple[Way, ...] = (*POOL_WAYS, *WAYS)
"""In the order in which they are expected to do well."""
