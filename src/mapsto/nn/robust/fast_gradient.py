"""One step along the gradient: the cheapest attack, with or without a random start.

``x' = Π(x₀ + α · steepest(∇ ℓ(f(x₀), y)))``, x₀ = x and α = ε (FGSM: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial
Examples", 2015), or x₀ drawn from the ball and α = 1.25 ε (Wong, Rice and Kolter, "Fast is Better than Free: Revisiting Adversarial
Training", 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mapsto.nn.robust.margins import Margin, cross_entropies
from mapsto.nn.robust.threat import Scores, Threat

__all__ = ["FAST_STEP", "fast_gradient", "gradient_of"]

FAST_STEP = 1.25
"""Step of the attack with a random start, in ε."""


def fast_gradient(
    scores: Scores,
    x: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    random_start: bool = False,
    step: float | None = None,
    margin: Margin = cross_entropies,
) -> Tensor:
    """Inputs (N, ...) moved by one step, `step` in units of x, by default ε, and 1.25 ε with a random start.

    >>> threat = Threat("linf", 0.1, (0.0, 1.0))
    >>> scores = lambda x: torch.stack([x[:, 0], -x[:, 0]], 1)
    >>> fast_gradient(scores, torch.tensor([[0.5], [0.02]]), torch.tensor([0, 0]), threat).tolist()
    [[0.4000000059604645], [0.0]]
    """
    start = threat.anywhere(x) if random_start else x
    if step is None:
        step = threat.epsilon * (FAST_STEP if random_start else 1.0)
    gradient = gradient_of(scores, start, labels, margin)[0]
    return threat.within(x, start + step * threat.steepest(gradient)).detach()


def gradient_of(scores: Scores, x: Tensor, labels: Tensor, margin: Margin) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient in x (N, ...), the margins (N,) and the scores (N, C) there; parameters get no gradient.

    It is zero where the scores do not depend on x by anything that has one, as behind an argmax.
    """
    at = x.detach().requires_grad_(True)
    with torch.enable_grad():
        given = scores(at)
        margins = margin(given, labels)
        found = torch.autograd.grad(margins.sum(), at, allow_unused=True)[0] if margins.requires_grad else None
    gradient = torch.zeros_like(at) if found is None else found
    return gradient, margins.detach(), given.detach()
