"""Projected gradient steps that choose their own length: halved where progress stalls, going on from the best point so far.

``z = Π(x_t + η · steepest(∇ℓ))``, ``x_{t+1} = Π(x_t + α (z − x_t) + (1 − α)(x_t − x_{t−1}))``, α = 0.75; at checkpoints p_j η is halved
where fewer than ρ = 0.75 of the steps since the last one raised the loss, or neither η nor the best loss has changed since (Croce and
Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-Free Attacks", 2020, algorithm 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mapsto.nn.robust.fast_gradient import gradient_of
from mapsto.nn.robust.margins import Margin, cross_entropies
from mapsto.nn.robust.threat import Scores, Threat

__all__ = ["auto_projected_gradient", "checkpoints"]

_MOMENTUM = 0.75
_RISING = 0.75
"""ρ: the share of steps that have to raise the loss."""


def checkpoints(steps: int) -> list[int]:
    """Steps at which the length is looked at: ``p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06)``, from 0 and 0.22, as shares.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(round(shares[-1] - shares[-2] - 0.03, 6), 0.06))
    found = [math.ceil(round(share * steps, 6)) for share in shares[1:] if share <= 1]
    return sorted(set(found))


def auto_projected_gradient(
    scores: Scores, x: Tensor, labels: Tensor, threat: Threat, *, steps: int, margin: Margin = cross_entropies
) -> Tensor:
    """For each input (N, ...) a point that the network errs at, else the one of the highest loss that was met.

    >>> threat = Threat("linf", 0.1, (0.0, 1.0))
    >>> scores = lambda x: torch.stack([x[:, 0], x[:, 1]], 1)  # right by 0.15, and 0.2 can be moved
    >>> moved = auto_projected_gradient(scores, torch.tensor([[0.6, 0.45]]), torch.tensor([0]), threat, steps=10)
    >>> scores(moved).argmax(1).item()
    1
    """
    shape = (-1, *[1] * (x.ndim - 1))
    at = threat.anywhere(x)
    gradient, loss, given = gradient_of(scores, at, labels, margin)
    best, best_gradient, best_loss = at.clone(), gradient.clone(), loss.clone()
    erring, found = given.argmax(1) != labels, at.clone()
    length = torch.full((len(x),), 2 * threat.epsilon, device=x.device)
    halved_before, best_before = torch.ones_like(erring), loss.clone()
    rising = torch.zeros(len(x), device=x.device)
    marks, last = checkpoints(steps), 0
    before = at
    for step in range(1, steps + 1):
        aim = threat.within(x, at + length.view(shape) * threat.steepest(gradient))
        share = 1.0 if step == 1 else _MOMENTUM
        there = threat.within(x, at + share * (aim - at) + (1 - share) * (at - before))
        before, at = at, there.detach()
        loss_before = loss
        gradient, loss, given = gradient_of(scores, at, labels, margin)
        rising += loss > loss_before
        now = (given.argmax(1) != labels) & ~erring
        found[now], erring = at[now], erring | now
        better = loss > best_loss
        best[better], best_gradient[better], best_loss[better] = at[better], gradient[better], loss[better]
        if bool(erring.all()):
            break
        if step in marks:
            few = rising < _RISING * (step - last)
            stuck = ~halved_before & (best_before >= best_loss)
            halve = few | stuck
            length[halve] /= 2
            at, gradient = at.clone(), gradient.clone()
            at[halve], gradient[halve], loss[halve] = best[halve], best_gradient[halve], best_loss[halve]
            halved_before, best_before = halve, best_loss.clone()
            rising, last = torch.zeros_like(rising), step
    return torch.where(erring.view(shape), found, best)
