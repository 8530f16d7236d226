"""How often classes are told right: shares with Wilson's interval, confusions, and precision, recall and F1 of each class.

``accuracy = right / N``; its interval holds the values of p for which the share that was found is within 1.96 standard deviations
(Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Metric, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["confusion_counts", "counted", "macro_metrics", "per_class", "share"]

_DRAWS = 1000
_MOST_CLASSES = 200
"""Of more classes no interval of the means over classes is drawn: it takes a second or more."""


def share(right: int, n: int) -> Metric:
    """A share in percent with both ends of Wilson's interval, and its half-width.

    >>> str(share(95, 100)), str(share(100, 100)), str(share(0, 100))
    ('95 % (88.8 to 97.8)', '100 % (96.3 to 100)', '0 % (0 to 3.7)')
    """
    z, p = 1.959964, right / n
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    low = 0.0 if right == 0 else 100 * max(0.0, middle - half)  # the ends exactly: rounding would leave the share out
    high = 100.0 if right == n else 100 * min(1.0, middle + half)
    return Metric(value=100 * p, unit="%", ci95=100 * half, n=n, low=low, high=high)


def counted(shares: Iterable[Metric]) -> tuple[int, int]:
    """How many are right of how many, over the parts that these are the shares of, as the folds of cross-validation.

    >>> counted([share(3, 4), share(5, 8)])
    (8, 12)
    """
    parts = [(round(part.value / 100 * (part.n or 0)), part.n or 0) for part in shares]
    return sum(right for right, _ in parts), sum(n for _, n in parts)


def confusion_counts(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How often each class (row) was taken for each (column), shape (classes, classes).

    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(counts: NDArray[np.int64], classes: Sequence[str]) -> Table:
    """Precision, recall, F1 (%) and the number of samples of each class, from a table of confusions."""
    right, support, guessed = np.diag(counts).astype(float), counts.sum(1), counts.sum(0)
    precision, recall = right / np.maximum(guessed, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(guessed + support, 1)
    rows = tuple(
        (name, round(100 * p, 2), round(100 * r, 2), round(100 * f, 2), int(n))
        for name, p, r, f, n in zip(
            classes, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True
        )
    )
    return Table(
        columns=("class", "precision", "recall", "f1", "support"),
        rows=rows,
        units={"precision": "%", "recall": "%", "f1": "%"},
    )


def macro_metrics(counts: NDArray[np.int64]) -> dict[str, Metric]:
    """Balanced accuracy (the mean recall) and macro F1 in percent, over the classes that have a sample.

    Their intervals are those of the bootstrap: tables of as many samples are drawn anew from the one that was found. Without one mistake
    there is no interval.

    >>> found = macro_metrics(np.array([[90, 0], [5, 5]]))
    >>> found["balanced_accuracy"].value, round(found["macro_f1"].value, 2)
    (75.0, 81.98)
    """
    n = int(counts.sum())
    values = _macro(counts[None].astype(float))[:, 0]
    ends = None
    if len(counts) <= _MOST_CLASSES and n > 1:
        shares = (counts / n).ravel()
        parts = max(1, 2**24 // max(shares.size, 1))
        generator = np.random.default_rng(0)
        drawn = np.concatenate(
            [
                _macro(
                    generator.multinomial(n, shares, min(parts, _DRAWS - start))
                    .reshape(-1, *counts.shape)
                    .astype(float)
                )
                for start in range(0, _DRAWS, parts)
            ],
            axis=1,
        )
        ends = np.percentile(drawn, [2.5, 97.5], axis=1)
    found: dict[str, Metric] = {}
    for place, name in enumerate(("balanced_accuracy", "macro_f1")):
        low, high = (None, None) if ends is None else (float(ends[0, place]), float(ends[1, place]))
        if low == high:  # without one mistake there is none to draw
            low = high = None
        half = None if low is None or high is None else (high - low) / 2
        found[name] = Metric(value=float(values[place]), unit="%", ci95=half, n=n, low=low, high=high)
    return found


def _macro(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Balanced accuracy and macro F1 of tables of confusions (draws, K, K), in percent, shape (2, draws)."""
    right, support, guessed = np.diagonal(counts, axis1=1, axis2=2), counts.sum(2), counts.sum(1)
    there = support > 0
    recall = np.where(there, right / np.maximum(support, 1), 0).sum(1)
    f1 = np.where(there, 2 * right / np.maximum(guessed + support, 1), 0).sum(1)
    return 100 * np.stack([recall, f1]) / np.maximum(there.sum(1), 1)
