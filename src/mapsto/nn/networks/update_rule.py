"""A learned update rule: a small network that sees how the training of one tensor goes, and says how far and in which mix of directions
it moves.

A network that looks at whole tensors, as the upper one of Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022;
its output corrects a rule that works by itself, as in Harrison, Metz and Sohl-Dickstein, "A Closer Look at Learned Optimization", 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, one_of

__all__ = ["DECAYS", "FEATURES", "OUTPUTS", "SECOND_DECAY", "TIMES", "TREND_DECAY", "UpdateRule", "update_rule"]

DECAYS = (0.9, 0.99)
"""Decays of the momenta: the usual one, and one that follows the course of many steps."""
SECOND_DECAY = 0.99
"""Decay of the mean squared gradient."""
TREND_DECAY = 0.9
"""Decay of the mean agreement of a gradient with those before it."""
TIMES = (3, 30)
"""Steps t₀ of the features ``tanh(t / t₀ − 1)``; after about 100 steps both stand still, however long training goes on."""
FEATURES = 11 + len(TIMES)
"""Features of a tensor."""
OUTPUTS = 6
"""Log magnitude; shares of the latest gradient and of the slow momentum; weights of three directions."""


class UpdateRule(nn.Module):
    """Features (S, FEATURES) of tensors → outputs (S, OUTPUTS), all 0 before training."""

    def __init__(self, *, hidden: int, nominal: str, rate: float) -> None:
        super().__init__()
        self.nominal, self.rate = nominal, rate
        self.features = nn.Linear(FEATURES, hidden)
        self.output = nn.Linear(hidden, OUTPUTS)
        nn.init.normal_(self.features.weight, std=1 / math.sqrt(FEATURES))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.output(torch.tanh(self.features(features)))


def update_rule(*, hidden: int = 16, nominal: str = "orthogonal", rate: float = 0.05) -> nn.Module:
    """An untrained rule.

    Parameters
    ----------
    hidden
        Units of its hidden layer.
    nominal
        The direction that it begins with: ``orthogonal``, of a matrix the momentum made orthogonal; or ``adam``.
    rate
        What every step is multiplied with.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> update_rule()(torch.zeros(3, FEATURES)).shape
    torch.Size([3, 6])
    """
    at_least(hidden, 1, name="hidden", where="update_rule")
    one_of(nominal, ("orthogonal", "adam"), name="nominal", where="update_rule")
    if not 0 < rate < float("inf"):
        raise DomainError(f"rate is {rate!r}", where="update_rule", hint="give a positive number, 0.05 as a rule")
    return UpdateRule(hidden=hidden, nominal=nominal, rate=rate)
