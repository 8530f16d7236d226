"""Which loss labels ask for: whole numbers are classes, floats of only 0 and 1 several labels at once, others numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from mapsto.errors import DomainError
from mapsto.nn.train import losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ANSWERS", "Kind", "chosen_kind", "kind_of", "loss"]

Kind: TypeAlias = Literal["classification", "multilabel", "regression"]
ANSWERS: dict[Kind, Literal["classes", "labels", "values"]] = {
    "classification": "classes",
    "multilabel": "labels",
    "regression": "values",
}
"""What a network's signature says of the outputs that were trained by that loss."""


def kind_of(labels: NDArray[Any]) -> Kind:
    """The kind of labels (N,) or targets (N, K).

    >>> kind_of(np.array([2, 0])), kind_of(np.array([[0.0, 1.0]])), kind_of(np.array([[0.5]]))
    ('classification', 'multilabel', 'regression')
    """
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return "classification"
    return "multilabel" if bool(np.isin(labels, (0, 1)).all()) else "regression"


def chosen_kind(wanted: Kind | Literal["auto"], labels: NDArray[Any], *, where: str) -> Kind:
    """The kind that is asked for, or that the labels have. Raises `DomainError` where they are not of that kind."""
    found = kind_of(labels)
    if wanted == "auto":
        return found
    if wanted == found or (wanted == "regression" and labels.ndim == 2):
        return wanted
    raise DomainError(
        f"the loss is {wanted}, but the labels, {labels.dtype} of shape {labels.shape}, are for {found}",
        where=where,
        hint=f"set loss: {found}, or give {_WANTED[wanted]}",
    )


_WANTED: dict[Kind, str] = {
    "classification": "whole numbers (N,), one class each",
    "multilabel": "targets (N, K) of only 0 and 1",
    "regression": "targets (N, K), one number each",
}


def loss(
    kind: Kind,
    outputs: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """The mean loss of that kind; `smoothing` is for classes, `weights` (of classes or labels) not for numbers."""
    if kind == "classification":
        return losses.classification(
            outputs, targets, weights=weights, smoothing=smoothing, sample_weights=sample_weights
        )
    if kind == "multilabel":
        return losses.multilabel(outputs, targets, weights=weights, sample_weights=sample_weights)
    return losses.regression(outputs, targets, sample_weights=sample_weights)
