"""What a version of a served model makes of features: a small head that is fitted in milliseconds and answers in microseconds.

``scores = last · max(0, first · z) + bias``, or ``last · z + bias`` without `first`, with z the features or their signed roots.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mapsto.errors import DataError, StoreError
from mapsto.nn.adapt import ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.online.head import Head as LearntHead

__all__ = ["VersionHead", "fitted", "of_learner"]


@dataclass(frozen=True, kw_only=True, eq=False)
class VersionHead:
    """Scores of classes from features."""

    classes: tuple[str, ...]
    last: NDArray[np.float32]
    """(K, D), or (K, P) behind `first`."""
    bias: NDArray[np.float32]
    """(K,)."""
    first: NDArray[np.float32] | None = None
    """(P, D)."""
    rooted: bool = False
    """Whether it is given the signed root of each feature."""

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, K) of features (N, D); the softmax of a row is a probability."""
        z = ridge.rooted(features) if self.rooted else features
        if self.first is not None:
            z = np.maximum(z @ self.first.T, 0)
        return z @ self.last.T + self.bias

    def content(self) -> bytes:
        """As bytes, without pickle."""
        held = {"last": self.last, "bias": self.bias, "classes": np.array(self.classes), "rooted": np.array(self.rooted)}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **held, **({} if self.first is None else {"first": self.first}))
        return file.getvalue()

    @staticmethod
    def of(content: bytes) -> VersionHead:
        """The head that `content` gave. Raises `StoreError` where it is damaged."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as held:
                classes = tuple(map(str, held["classes"].tolist()))
                first = held["first"] if "first" in held.files else None
                head = VersionHead(
                    classes=classes, last=held["last"], bias=held["bias"], first=first, rooted=bool(held["rooted"])
                )
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError("the head of a version is damaged", hint="roll back to an earlier version") from error
        if head.last.shape[0] != len(classes) or head.bias.shape != (len(classes),):
            raise StoreError("the head of a version does not fit its classes", hint="roll back to an earlier version")
        return head


def fitted(features: NDArray[np.float32], labels: Sequence[str]) -> VersionHead:
    """Ridge regression on the features or on their roots, whichever is likelier on examples that are left out in turn.

    Raises `DataError` for fewer than two classes, or features that are not finite.

    >>> head = fitted(np.array([[0, 1], [0, 2], [1, 0], [2, 0]], np.float32), ["a", "a", "b", "b"])
    >>> head.classes, head.scores(np.array([[0, 3]], np.float32)).argmax()
    (('a', 'b'), np.int64(0))
    """
    classes = tuple(dict.fromkeys(labels))
    if len(classes) < 2:
        raise DataError("the examples are of fewer than two classes", where="adapt", hint="give examples of two or more")
    if not np.isfinite(features).all():
        raise DataError("the model gives NaN or infinity for an example", where="adapt", hint="leave that example out")
    numbers = np.array([classes.index(label) for label in labels])
    ways = {
        rooted: ridge.fitted(ridge.rooted(features) if rooted else features, numbers, len(classes), normalise=True)
        for rooted in (True, False)
    }
    rooted = not len(ways[True].losses) or ways[True].losses.mean() <= ways[False].losses.mean()
    fit = ways[rooted]
    return VersionHead(
        classes=classes, last=fit.weight.astype(np.float32), bias=fit.bias.astype(np.float32), rooted=rooted
    )


def of_learner(head: LearntHead, classes: Sequence[str]) -> VersionHead:
    """The head of an online learner that stands on features."""
    first = None if head.first is None else head.first.astype(np.float32)
    return VersionHead(
        classes=tuple(classes), last=head.last.astype(np.float32), bias=head.bias.astype(np.float32), first=first
    )
