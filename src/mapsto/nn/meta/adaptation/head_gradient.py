"""Adapt a linear head alone, by gradient descent over embeddings that stay as they are; its gradient is known in closed form.

``W ← W − α (softmax(W z + b) − y)ᵀ z / S`` over a support set of S embeddings z with one-hot labels y, and with ``2 (W z + b − y) / K`` in
place of the bracket for K regression targets (Raghu, Raghu, Bengio and Vinyals, "Rapid Learning or Feature Reuse? Towards
Understanding the Effectiveness of MAML", 2020). That is the general inner loop with ``adapts: head``, for all tasks at once,
from products and softmax alone, so that it can be exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mapsto.errors import DataError, DomainError
from mapsto.kinds import Adaptation, Json
from mapsto.nn.network.head import episode_features

__all__ = ["BIAS", "WEIGHT", "feature_scores", "head", "path", "path_scores", "settings_of"]

PREDICTS_VALUES = True
"""Targets of numbers are followed by the squared error."""

WEIGHT, BIAS = "~head.weight", "~head.bias"
"""The learner's tensors: the head that tasks begin with, shapes (ways, D) and (ways,); without them it begins at 0."""
Head: TypeAlias = tuple[Tensor, Tensor]


def settings_of(*, steps: int, rate: float, head: Literal["learned", "zero"], first_order: bool) -> dict[str, Json]:
    """The settings of a learner.

    Parameters
    ----------
    steps
        Inner steps.
    rate
        α.
    head
        What tasks begin with: the learner's tensors, or 0, for any number of ways.
    first_order
        Whether, in training, the inner gradients count as constants.
    """
    return {"steps": steps, "rate": rate, "head": head, "first_order": first_order}


def path(support: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> Iterator[Head]:
    """Weight (..., ways, D) and bias (..., ways) before the first step and after each.

    Parameters
    ----------
    support
        Embeddings (..., S, D).
    labels
        Classes (..., S) int64, or targets (..., S, ways).

    Raises
    ------
    DomainError
        The learner's head is for another number of ways or another size of embedding.
    """
    steps, rate = (
        int(cast("Any", adaptation.settings.get("steps", 5))),
        float(cast("Any", adaptation.settings.get("rate", 0.4))),
    )
    weight, bias = _first(support, ways, adaptation)
    yield weight, bias
    regression = labels.is_floating_point()
    wanted = labels if regression else _one_hot(labels, ways, support)
    factor = 2 / (support.shape[-2] * ways) if regression else 1 / support.shape[-2]
    for _ in range(steps):
        outputs = _linear(support, (weight, bias))
        errors = factor * ((outputs if regression else outputs.softmax(-1)) - wanted)
        by_weight, by_bias = errors.transpose(-1, -2) @ support, errors.sum(-2)
        if adaptation.settings.get("first_order"):
            by_weight, by_bias = by_weight.detach(), by_bias.detach()
        weight, bias = weight - rate * by_weight, bias - rate * by_bias
        yield weight, bias


def head(features: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> Head:
    """The adapted head: weight (..., ways, D) and bias (..., ways), for support embeddings (..., S, D) and labels (..., S).

    Raises `DomainError` where the inner loop diverges: names the step, the loss and the rate.

    >>> settings = settings_of(steps=1, rate=1.0, head="zero", first_order=False)
    >>> adaptation = Adaptation(method="head_gradient", settings=settings)
    >>> head(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]), 2, adaptation)
    (tensor([[-0.5000],
            [ 0.5000]]), tensor([0., 0.]))
    """
    weight, bias = list(path(features, labels, ways, adaptation))[-1]
    if not torch.compiler.is_exporting() and not bool(weight.isfinite().all()):
        _diverged(features, labels, ways, adaptation)
    return weight, bias


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (B, Q, ways) of query embeddings (B, Q, D) by the head that the support set gives."""
    return _linear(query, head(support, support_labels, ways, adaptation))


def path_scores(
    module: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """Scores (steps + 1, B, Q, ways) before the first inner step and after each."""
    support, query = episode_features(module, support, query)
    return torch.stack([_linear(query, found) for found in path(support, support_labels, ways, adaptation)])


def _linear(features: Tensor, by: Head) -> Tensor:
    return features @ by[0].transpose(-1, -2) + by[1].unsqueeze(-2)


def _one_hot(labels: Tensor, ways: int, like: Tensor) -> Tensor:
    if not torch.compiler.is_exporting() and not 0 <= int(labels.min()) <= int(labels.max()) < ways:
        raise DataError(
            f"labels go from {int(labels.min())} to {int(labels.max())}",
            where="support set",
            hint=f"the labels of {ways} ways are 0 to {ways - 1}",
        )
    return (labels.unsqueeze(-1) == torch.arange(ways, device=labels.device)).to(like.dtype)


def _first(support: Tensor, ways: int, adaptation: Adaptation) -> Head:
    tasks, size = support.shape[:-2], support.shape[-1]
    if adaptation.settings.get("head", "zero") == "zero":
        return support.new_zeros(*tasks, ways, size), support.new_zeros(*tasks, ways)
    weight, bias = (adaptation.tensors[name].to(support.device, support.dtype) for name in (WEIGHT, BIAS))
    if tuple(weight.shape) != (ways, size):
        raise DomainError(
            f"the learner's head is for {weight.shape[0]} ways and embeddings of {weight.shape[1]}, "
            f"the task has {ways} ways and embeddings of {size}",
            hint="a head that begins at 0 (head: zero) goes with any of them",
        )
    return weight.expand(*tasks, ways, size), bias.expand(*tasks, ways)


def _diverged(support: Tensor, labels: Tensor, ways: int, adaptation: Adaptation) -> None:
    for step, found in enumerate(path(support, labels, ways, adaptation)):
        outputs = _linear(support, found)
        loss = mse_loss(outputs, labels) if labels.is_floating_point() else cross_entropy(outputs.mT, labels)
        if not bool(loss.isfinite()):
            raise DomainError(
                f"the inner loop diverged: the loss at inner step {step} is {loss.item()} at an inner rate of "
                f"{float(cast('Any', adaptation.settings.get('rate', 0.4))):g}",
                hint="lower the inner rate, or take fewer inner steps",
            )
    raise DomainError(
        "the adapted head is not finite", hint="lower the inner rate, or look for extreme values in the embeddings"
    )
