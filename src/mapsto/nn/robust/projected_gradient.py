"""Several small steps along the gradient, each drawn back into the ball: the attack that robustness is usually judged by.

``x_{t+1} = Π(x_t + α · steepest(∇ ℓ(f(x_t), y)))`` from a random start (Madry et al., "Towards Deep Learning Models Resistant to
Adversarial Attacks", 2018).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mapsto.nn.robust.fast_gradient import gradient_of
from mapsto.nn.robust.margins import Margin, cross_entropies
from mapsto.nn.robust.threat import Scores, Threat

__all__ = ["projected_gradient"]


def projected_gradient(
    scores: Scores,
    x: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int,
    step: float | None = None,
    start: Callable[[Tensor], Tensor] | None = None,
    margin: Margin = cross_entropies,
) -> Tensor:
    """Inputs (N, ...) after `steps` steps of length `step`, by default ε / 4 and, of few steps, what crosses the ball: 2.5 ε / steps.

    `start`: x → where it begins; by default drawn from the ball. The last point is the result, not the best, as is usual.

    >>> import torch
    >>> threat = Threat("l2", 0.5)
    >>> scores = lambda x: torch.stack([x[:, 0], -x[:, 0]], 1)
    >>> [round(value, 3) for value in projected_gradient(scores, torch.zeros(1, 2), torch.tensor([0]), threat, steps=50)[0].abs().tolist()]
    [0.5, 0.0]
    """
    if step is None:
        step = max(threat.epsilon / 4, 2.5 * threat.epsilon / steps) if steps < 10 else threat.epsilon / 4
    at = threat.anywhere(x) if start is None else start(x)
    for _ in range(steps):
        gradient = gradient_of(scores, at, labels, margin)[0]
        at = threat.within(x, at + step * threat.steepest(gradient)).detach()
    return at
