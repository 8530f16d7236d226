"""How well several labels at once are told: precision, recall and F1 of each label, and how often a sample's labels are all right.

``F1 = 2 TP / (2 TP + FP + FN)``; micro: over all labels and samples together, macro: the mean over the labels that some sample has (Lewis
et al., "Training Algorithms for Linear Text Classifiers", 1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LabelFigures", "label_figures"]


@dataclass(frozen=True, kw_only=True)
class LabelFigures:
    """What predicted labels came to, in percent."""

    exact: int
    """Samples of which every label is right."""
    samples: int
    micro_f1: float
    macro_f1: float
    per_label: Table
    """Precision, recall, F1 and the number of samples of each label."""


def label_figures(labels: NDArray[Any], predicted: NDArray[np.bool_], names: Sequence[str]) -> LabelFigures:
    """Of labels (N, K), 0 or 1, and those that were predicted, (N, K).

    >>> found = label_figures(np.array([[1, 0], [1, 1]]), np.array([[True, False], [True, False]]), ["a", "b"])
    >>> found.exact, round(found.micro_f1, 1), found.macro_f1
    (1, 80.0, 50.0)
    """
    there, said = np.asarray(labels) > 0.5, np.asarray(predicted, np.bool_)
    right, support, guessed = (there & said).sum(0), there.sum(0), said.sum(0)
    precision, recall = right / np.maximum(guessed, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + guessed, 1)
    rows = tuple(
        (name, round(100 * p, 2), round(100 * r, 2), round(100 * f, 2), int(n))
        for name, p, r, f, n in zip(
            names, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True
        )
    )
    columns = ("label", "precision", "recall", "f1", "support")
    return LabelFigures(
        exact=int((there == said).all(1).sum()),
        samples=len(there),
        micro_f1=200 * float(right.sum()) / max(float(support.sum() + guessed.sum()), 1.0),
        macro_f1=100 * float(f1[support > 0].mean()) if (support > 0).any() else 0.0,
        per_label=Table(columns=columns, rows=rows, units=dict.fromkeys(columns[1:4], "%")),
    )
