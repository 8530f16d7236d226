"""Heads that cross-validation chooses: they take seconds, where ridge regression takes milliseconds, so that they are fitted as jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mapsto.errors import MapstoError
from mapsto.service.heads import VersionHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WAYS", "cross_validated"]

WAYS = ("logistic", "best")
"""``logistic``: logistic regression whose strength is chosen, as `adapt.linear`. ``best``: that, ridge regression or class means, as
`adapt.best`."""


def cross_validated(
    features: NDArray[np.float32], numbers: NDArray[np.int64], classes: Sequence[str], way: str
) -> tuple[VersionHead, str]:
    """A head and why it is this one; the same for the same examples.

    Parameters
    ----------
    features, numbers, classes
        (N, D); of each example its class (N,), of each class one at least; names (K,).
    way
        One of `WAYS`.

    >>> rows = np.array([[0, 1], [0, 2], [1, 0], [2, 0]], np.float32)
    >>> head, why = cross_validated(rows, np.array([0, 0, 1, 1]), ("a", "b"), "logistic")
    >>> head.scores(np.array([[0, 3]], np.float32)).argmax(), why.partition(" of")[0]
    (np.int64(0), 'logistic regression, strength 10')
    """
    return (_logistic if way == "logistic" else _best)(features, numbers, tuple(classes))


def _logistic(
    features: NDArray[np.float32], numbers: NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[VersionHead, str]:
    from mapsto.nn.adapt import logistic

    strength, losses = logistic.chosen(features, numbers, len(classes), np.random.default_rng(0))
    weight, bias = logistic.fit(features, numbers, len(classes), strength=strength)
    tried = f" of {', '.join(f'{each:g}' for each in losses)} by cross-validation" if losses else ""
    return _head(classes, weight, bias), f"logistic regression, strength {strength:g}{tried}"


def _best(
    features: NDArray[np.float32], numbers: NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[VersionHead, str]:
    from mapsto.nn.adapt import choice_of_head
    from mapsto.nn.adapt.linear_head import LinearHead

    linear = [way for way in choice_of_head.WAYS if way.name != "nearest"]  # what a version can be
    rows = np.asarray(features, np.float64)
    choice = choice_of_head.choose(rows, numbers, len(classes), np.random.default_rng(0), ways=linear)
    found = choice.head(len(numbers))
    if not isinstance(found, LinearHead):
        raise MapstoError(f"{choice.picked.name} gives no linear head, which a version is", where="adapt")
    return _head(classes, found.weight, found.bias, rooted=found.root), f"{choice.picked.name}: {choice.why}"


def _head(
    classes: tuple[str, ...], weight: NDArray[np.float64], bias: NDArray[np.float64], *, rooted: bool = False
) -> VersionHead:
    return VersionHead(classes=classes, last=weight.astype(np.float32), bias=bias.astype(np.float32), rooted=rooted)
