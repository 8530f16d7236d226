"""What a version of a served model makes of features: a small head that is fitted in milliseconds and answers in microseconds.

``scores = last · max(0, first · z + offset) + bias``, or ``last · z + bias`` without `first`, with z the features, their signed roots
or their direction.
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
    from mapsto.nn.online.head import RowColumn

__all__ = ["VersionHead", "fitted", "numbered", "of_learner"]


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
    offset: NDArray[np.float32] | None = None
    """(P,), with `first`."""
    rooted: bool = False
    """Whether it is given the signed root of each feature."""
    directed: bool = False
    """Whether it is given features of length √D, as online learners are."""

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, K) of features (N, D); the softmax of a row is a probability."""
        z = ridge.rooted(features) if self.rooted else features
        if self.directed:
            lengths = np.linalg.norm(z, axis=1, keepdims=True)
            z = z * (z.shape[1] ** 0.5 / np.maximum(lengths, 1e-30)).astype(z.dtype)
        if self.first is not None:
            z = z @ self.first.T
            z = np.maximum(z if self.offset is None else z + self.offset, 0)
        return z @ self.last.T + self.bias

    def content(self) -> bytes:
        """As bytes, without pickle."""
        held = {
            "last": self.last,
            "bias": self.bias,
            "classes": np.array(self.classes),
            "ways": np.array([self.rooted, self.directed]),
        }
        file = io.BytesIO()
        more = {"first": self.first, "offset": self.offset}
        np.savez(file, allow_pickle=False, **held, **{name: each for name, each in more.items() if each is not None})
        return file.getvalue()

    @staticmethod
    def of(content: bytes) -> VersionHead:
        """The head that `content` gave. Raises `StoreError` where it is damaged."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as held:
                classes = tuple(map(str, held["classes"].tolist()))
                first, offset = (held[name] if name in held.files else None for name in ("first", "offset"))
                head = VersionHead(
                    classes=classes,
                    last=held["last"],
                    bias=held["bias"],
                    first=first,
                    offset=offset,
                    rooted=bool(held["ways"][0]),
                    directed=bool(held["ways"][1]),
                )
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError("the head of a version is damaged", hint="roll back to an earlier version") from error
        if head.last.shape[0] != len(classes) or head.bias.shape != (len(classes),):
            raise StoreError("the head of a version does not fit its classes", hint="roll back to an earlier version")
        return head


def numbered(features: NDArray[np.float32], labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes in the order in which they come, and each example's number among them.

    Raises `DataError` for fewer than two classes, or features that are not finite.
    """
    classes = tuple(dict.fromkeys(labels))
    if len(classes) < 2:
        raise DataError(
            "the examples are of fewer than two classes", where="adapt", hint="give examples of two or more"
        )
    if not np.isfinite(features).all():
        raise DataError("the model gives NaN or infinity for an example", where="adapt", hint="leave that example out")
    numbers = {label: number for number, label in enumerate(classes)}
    return classes, np.array([numbers[label] for label in labels], np.int64)


def fitted(features: NDArray[np.float32], labels: Sequence[str]) -> VersionHead:
    """Ridge regression on the features or on their roots, whichever is likelier on examples that are left out in turn.

    Raises `DataError` for fewer than two classes, or features that are not finite.

    >>> head = fitted(np.array([[0, 1], [0, 2], [1, 0], [2, 0]], np.float32), ["a", "a", "b", "b"])
    >>> head.classes, head.scores(np.array([[0, 3]], np.float32)).argmax()
    (('a', 'b'), np.int64(0))
    """
    classes, numbers = numbered(features, labels)
    ways = {
        rooted: ridge.fitted(ridge.rooted(features) if rooted else features, numbers, len(classes), normalise=True)
        for rooted in (True, False)
    }
    rooted = not len(ways[True].losses) or ways[True].losses.mean() <= ways[False].losses.mean()
    fit = ways[rooted]
    return VersionHead(
        classes=classes, last=fit.weight.astype(np.float32), bias=fit.bias.astype(np.float32), rooted=rooted
    )


def of_learner(head: LearntHead, layout: Sequence[RowColumn], classes: Sequence[str]) -> VersionHead:
    """The head of an online learner that stands on features.

    Parameters
    ----------
    layout
        Where the features stand in its rows; whatever else is in a row is the constant 1.
    """
    (column,) = layout
    places = list(column.places)
    matrix = head.last if head.first is None else head.first
    constant = np.delete(matrix, places, axis=1).sum(1)
    last, bias, first, offset = head.last, head.bias, None, None
    if head.first is None:
        last, bias = matrix[:, places], bias + constant
    else:
        first, offset = matrix[:, places].astype(np.float32), constant.astype(np.float32)
    last, bias = last - last.mean(0), bias - bias.mean()  # the softmax is the same, and float32 holds it better
    return VersionHead(
        classes=tuple(classes),
        last=last.astype(np.float32),
        bias=bias.astype(np.float32),
        first=first,
        offset=offset,
        directed=True,
    )
