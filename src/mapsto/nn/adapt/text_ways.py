"""Ways to a head on the embeddings of texts, in the order in which they are expected to do well.

An encoder of sentences gives vectors of length 1 whose directions of little spread say little, and which are no counts: neither the root of
the features nor scaling each of them, which suit images, is of use. Logistic regression on them as they are, with C chosen, is right on two
to four points more than class means or a ridge regression, with 5 and 10 labels of the 77 classes of Banking77 and the 150 of CLINC150.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.nn.adapt import centroid, multinomial, ridge
from mapsto.nn.adapt.augment_policy import COPIES_WEIGH, with_copies
from mapsto.nn.adapt.choice_of_head import Prepared, Way
from mapsto.nn.adapt.linear_head import LinearHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEW_FOLDS", "text_ways"]

FEW_FOLDS = 100_000
"""Examples times classes, from which on three folds judge, once over: more tell little."""


def text_ways(given: int, weights: NDArray[Any] | None = None, copies: NDArray[Any] | None = None) -> tuple[Way, ...]:
    """The ways.

    Parameters
    ----------
    given
        So many of the last examples are names of classes, of which C is not judged.
    weights
        Of the examples and the names, (N + M,), for logistic regression, the only one that classes of unequal size mislead.
    copies
        Embeddings (C, N, D) of changed copies of the examples, which logistic regression learns from as well.
    """
    return (_logistic(given, weights, copies), Way("ridge without the root", _ridge), Way("centroid", _centroid))


def _logistic(given: int, weights: NDArray[Any] | None, copies: NDArray[Any] | None) -> Way:
    def prepare(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
        chosen = multinomial.chosen(features, labels, classes, np.random.default_rng(0), weights=weights, given=given)

        def fit(places: NDArray[np.int64]) -> LinearHead:
            rows, numbers = features[places], labels[places]
            shares, strength = None if weights is None else weights[places], chosen.strength
            if copies is not None:
                own = places[places < copies.shape[1]]
                more, also, heavy = with_copies(features[own], labels[own], copies[:, own])
                before = np.ones(len(rows)) if shares is None else shares
                heavy *= np.tile(before[places < copies.shape[1]], len(copies) + 1)
                added = slice(len(own), None)
                rows, numbers = np.concatenate([rows, more[added]]), np.concatenate([numbers, also[added]])
                shares = np.concatenate([before, heavy[added]])
                strength /= 1 + COPIES_WEIGH
            weight, bias = multinomial.fit(rows, numbers, classes, strength=strength, weights=shares)
            return LinearHead(chosen.scale * weight, chosen.scale * bias)

        return fit

    return Way("logistic", prepare)


def _ridge(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    """Its penalty and scale are chosen once, on all examples."""
    found = ridge.fitted(features, labels, classes)

    def fit(places: NDArray[np.int64]) -> LinearHead:
        return LinearHead(
            *ridge.fit(features[places], labels[places], classes, penalty=found.penalty, scale=found.scale)
        )

    return fit


def _centroid(features: NDArray[Any], labels: NDArray[Any], pool: NDArray[Any], classes: int) -> Prepared:
    """Its scale is chosen once, on a part of the examples."""
    drawn = np.random.default_rng(0).permutation(len(labels))[: max(FEW_FOLDS // classes, 2 * classes)]
    scale = centroid.likeliest_scale(np.asarray(features, np.float64)[drawn], labels[drawn], classes, cosine=False)

    def fit(places: NDArray[np.int64]) -> LinearHead:
        return LinearHead(*centroid.fit(features[places], labels[places], classes, scale=scale))

    return fit
