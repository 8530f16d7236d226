"""The loss of a batch that an adversary has moved first, by each way of adversarial training.

``min_θ E max_{‖δ‖ ≤ ε} ℓ(f_θ(x + δ), y)`` (Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018), the
maximum found by one step, by several, or by the step before on the same batch; or ``ℓ(f(x), y) + β KL(f(x) ‖ f(x'))`` (TRADES).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, softmax

from mapsto.kinds import Preprocessing
from mapsto.nn.robust.fast_gradient import fast_gradient
from mapsto.nn.robust.projected_gradient import projected_gradient
from mapsto.nn.robust.threat import Scores, Threat, raw, scores_of
from mapsto.nn.train.batches import Batch, Batches
from mapsto.nn.train.loop import Training

if TYPE_CHECKING:
    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.process import Rows, State

__all__ = ["AdversarialLoss", "FreeLoss", "FreeTraining", "Method", "Repeated"]

Method = Literal["fgsm", "fast", "free", "pgd", "trades"]
Loss = Callable[[Tensor, Tensor], Tensor]
"""Scores (N, C) and labels (N,) → a scalar."""
_TRADES_NOISE = 0.001
"""Standard deviation of where the attack of TRADES begins: where x' = x, the gradient of the divergence is zero."""


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """Called with (the module to call, batch): the loss on inputs that are moved against it.

    Attacks see the network as it trains, batch norms by the batch, as in the papers' own code.
    """

    method: Method
    threat: Callable[[tuple[float, float] | None], Threat]
    """The range of values → the threat."""
    loss: Loss
    preprocessing: Preprocessing
    augmenter: Augmenter
    steps: int = 10
    step: float | None = None
    """Length of a step, in the input's unit; None for the method's own."""
    beta: float = 6.0
    """TRADES: the weight of the divergence."""

    def __call__(self, call: nn.Module, item: Batch) -> Tensor:
        x, labels, threat = self.batch(item)
        scores = scores_of(call, self.preprocessing)
        if self.method == "trades":
            clean = scores(x)
            moved = self._diverging(scores, clean.detach(), x, labels, threat)
            return self.loss(clean, labels) + self.beta * _divergence(scores(moved), softmax(clean, 1)).mean()
        return self.loss(scores(self._moved(scores, x, labels, threat)), labels)

    def batch(self, item: Batch) -> tuple[Tensor, Tensor, Threat]:
        """Inputs before normalisation, changed at random, their labels, and what may be done to them."""
        changed = self.augmenter.changed(item.inputs, item.step, item.labels)
        x, bounds = raw(changed, self.preprocessing, where="data")
        return x, torch.as_tensor(item.labels, device=x.device), self.threat(bounds)

    def _moved(self, scores: Scores, x: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        if self.method == "pgd":
            return projected_gradient(scores, x, labels, threat, steps=self.steps, step=self.step)
        return fast_gradient(scores, x, labels, threat, random_start=self.method == "fast", step=self.step)

    def _diverging(self, scores: Scores, clean: Tensor, x: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Inputs at which the answers differ most from those on clean ones."""
        target = softmax(clean, 1)
        return projected_gradient(
            scores,
            x,
            labels,
            threat,
            steps=self.steps,
            step=self.step,
            start=lambda given: threat.within(given, given + _TRADES_NOISE * torch.randn_like(given)),
            margin=lambda moved, _: _divergence(moved, target),
        )


def _divergence(scores: Tensor, target: Tensor) -> Tensor:
    """KL(target ‖ softmax(scores)) of each sample."""
    return kl_div(log_softmax(scores, 1), target, reduction="none").sum(1)


class FreeLoss:
    """The loss at x + δ, where δ follows from the gradients of the steps before: one backward pass serves the weights and δ.

    Shafahi et al., "Adversarial Training for Free!", 2019. δ passes on from batch to batch, as in the paper.
    """

    def __init__(self, parts: AdversarialLoss, delta: Tensor | None = None) -> None:
        self._parts = parts
        self.delta = delta
        """(N, ...), in the input's unit; None before the first batch."""
        self._last: tuple[Tensor, Tensor, Threat] | None = None

    def __call__(self, call: nn.Module, item: Batch) -> Tensor:
        x, labels, threat = self._parts.batch(item)
        delta = self.delta if self.delta is not None and self.delta.shape == x.shape else torch.zeros_like(x)
        at = threat.within(x, x + delta.to(x.device)).requires_grad_(True)
        self._last = x, at, threat
        return self._parts.loss(scores_of(call, self._parts.preprocessing)(at), labels)

    def follow(self) -> None:
        """Move δ along the gradient that the last backward pass has left."""
        if self._last is None or self._last[1].grad is None:
            return
        x, at, threat = self._last
        gradient = at.grad
        step = self._parts.step if self._parts.step is not None else threat.epsilon
        at = at.detach()
        self.delta = threat.within(x, at + step * threat.steepest(gradient)) - x  # type: ignore[arg-type]
        self._last = None


class FreeTraining(Training):
    """A training whose loss is a `FreeLoss`: δ is part of its state."""

    def __init__(self, module: nn.Module, state: State | None, *, loss: FreeLoss, **rest: Any) -> None:
        self._free = loss
        if state is not None:
            loss.delta = state.get("delta")
        super().__init__(module, state, loss=loss, **rest)

    def advance(self, item: Any) -> Rows:
        rows = super().advance(item)
        self._free.follow()
        return rows

    def snapshot(self) -> State:
        state = super().snapshot()
        if self._free.delta is not None:
            state["delta"] = self._free.delta
        return state


class Repeated:
    """Each batch of an epoch several times in a row."""

    workers = 1

    def __init__(self, batches: Batches, times: int) -> None:
        self._batches, self._times = batches, times

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self._batches.per_epoch * self._times

    def __getitem__(self, step: int) -> Batch:
        return self._batches[step // self._times]  # its step, so that the random changes are those of the batch too
