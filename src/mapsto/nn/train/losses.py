"""Losses: plain differentiable functions of a batch, each its mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError

if TYPE_CHECKING:
    from mapsto.data.augment import Drawn

__all__ = ["class_weights", "classification", "multilabel", "of_drawn", "regression"]


def classification(
    logits: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of logits (N, C) against classes (N,), int64, or shares of classes (N, C) as mixed samples have them.

    ``−Σ_ic w_c y_ic log p_ic / Σ_ic w_c y_ic``: `weights` w (C,) multiplies each class's loss, and the mean is taken by what counts, so
    that a class's share counts as much whether samples are mixed or not. `sample_weights` (N,) multiplies each sample's part of both sums;
    `smoothing` spreads that share of each label over all classes (Szegedy et al., "Rethinking the Inception Architecture", 2016).

    >>> round(classification(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
    1.3863
    >>> round(classification(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), weights=torch.tensor([3.0, 1.0])).item(), 4)
    1.0633
    """
    if not targets.is_floating_point():
        if sample_weights is None:
            return functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
        targets = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    losses = functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="none")
    counts = (targets if weights is None else targets * weights).sum(1)
    if sample_weights is not None:
        losses, counts = losses * sample_weights, counts * sample_weights
    return losses.sum() / counts.sum()


def of_drawn(
    call: Callable[[Tensor], Tensor], drawn: Drawn, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """`classification` of a batch as augmentations have left it; `call` gives its logits (N, C)."""
    logits = call(drawn.x)
    return classification(logits, drawn.targets, weights=weights, smoothing=smoothing, sample_weights=drawn.weights)


def multilabel(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of logits (N, C) against targets (N, C) from 0 to 1; `weights` (C,) multiplies the positives' loss.

    >>> round(multilabel(torch.zeros(1, 2), torch.ones(1, 2)).item(), 4)
    0.6931
    """
    if sample_weights is None:
        return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
    losses = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    return _weighted_mean(losses, sample_weights)


def regression(
    outputs: Tensor,
    targets: Tensor,
    *,
    kind: Literal["mse", "mae", "huber"] = "mse",
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Distance of outputs from targets of the same shape: squared, absolute, or Huber's (1964).

    >>> regression(torch.tensor([3.0]), torch.tensor([1.0])).item(), regression(torch.tensor([3.0]), torch.tensor([1.0]), kind="mae").item()
    (4.0, 2.0)
    """
    if outputs.shape != targets.shape:
        raise DomainError(
            f"outputs are {tuple(outputs.shape)}, targets {tuple(targets.shape)}", hint="give one target an output"
        )
    losses = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.smooth_l1_loss}
    if sample_weights is None:
        return losses[kind](outputs, targets)
    return _weighted_mean(losses[kind](outputs, targets, reduction="none"), sample_weights)


def _weighted_mean(losses: Tensor, sample_weights: Tensor) -> Tensor:
    """The mean of losses (N, ...) in which each sample counts by its weight (N,)."""
    return (losses.flatten(1).mean(1) * sample_weights).sum() / sample_weights.sum()


def class_weights(
    labels: Tensor, classes: int, *, scheme: Literal["none", "balanced", "effective"] = "balanced", beta: float = 0.999
) -> Tensor:
    """One weight a class, shape (C,), of mean 1 over the samples.

    ``balanced``: inverse to the class's count; ``effective``: inverse to its effective number ``(1 − βⁿ) / (1 − β)`` (Cui et al.,
    "Class-Balanced Loss Based on Effective Number of Samples", 2019).

    Raises
    ------
    DomainError
        A label is not from 0 to C - 1, or a class has no sample.

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DomainError(
            f"labels are {int(labels.min())} to {int(labels.max())}", hint=f"give labels from 0 to {classes - 1}"
        )
    counts = torch.bincount(labels, minlength=classes).float()
    if bool((counts == 0).any()):
        empty = [int(i) for i in (counts == 0).nonzero().flatten()[:5]]
        raise DomainError(
            f"no sample of class {', '.join(map(str, empty))}", hint="drop the class, or use no class weights"
        )
    if scheme == "none":
        return torch.ones(classes)
    weights = 1 / counts if scheme == "balanced" else (1 - beta) / (1 - beta**counts)
    return weights * len(labels) / (weights * counts).sum()
