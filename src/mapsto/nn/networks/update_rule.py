"""A learned update rule: a small network that sees one parameter's gradients and says which way it moves, and how far.

Metz et al., "Tasks, Stability, Architecture, and Compute: Training More Effective Learned Optimizers, and Using Them to Train
Themselves", 2020; beside a nominal term as in Harrison, Metz and Sohl-Dickstein, "A Closer Look at Learned Optimization", 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.networks._checks import at_least, one_of

__all__ = ["DECAYS", "ELEMENTS", "SECOND_DECAY", "TENSORS", "TIMES", "UpdateRule", "update_rule"]

DECAYS = (0.5, 0.9, 0.99, 0.999)
"""Decays of the momenta that the rule sees."""
SECOND_DECAY = 0.999
"""Decay of the mean squared gradient."""
TIMES = (1, 3, 10, 30, 100, 300)
"""Steps t₀ of the features ``tanh(t / t₀ − 1)``; after about 1,000 steps all of them stand still, however long training goes on."""
ELEMENTS = 4 + 2 * len(DECAYS)
"""Features of a parameter."""
TENSORS = 7 + len(TIMES)
"""Features of the tensor that it is part of."""


class UpdateRule(nn.Module):
    """Features (N, ELEMENTS + TENSORS) → direction and log magnitude (N, 2)."""

    def __init__(self, *, hidden: int, nominal: str, rate: float) -> None:
        super().__init__()
        self.nominal, self.rate = nominal, rate
        self.elements = nn.Linear(ELEMENTS, hidden)
        self.tensors = nn.Linear(TENSORS, hidden, bias=False)
        self.hidden = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 2)
        if nominal == "adam":  # the untrained rule then is Adam
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        elements, tensors = features.split((ELEMENTS, TENSORS), -1)
        return self.outputs(elements, self.context(tensors))

    def context(self, tensors: Tensor) -> Tensor:
        """What the features (S, TENSORS) of tensors add to the first layer, shape (S, hidden): computed once a tensor."""
        return self.tensors(tensors)

    def outputs(self, elements: Tensor, context: Tensor) -> Tensor:
        """Direction and log magnitude (N, 2) from the features (N, ELEMENTS) of parameters and their tensors' context (N, hidden)."""
        first = torch.relu(self.elements(elements) + context)
        return self.output(torch.relu(self.hidden(first)))


def update_rule(*, hidden: int = 16, nominal: str = "adam", rate: float = 1e-3) -> nn.Module:
    """An untrained rule.

    Parameters
    ----------
    hidden
        Units of each of its two hidden layers.
    nominal
        ``adam``: its direction is added to Adam's; ``none``: it stands alone.
    rate
        What every step is multiplied with.

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> update_rule()(torch.zeros(3, ELEMENTS + TENSORS)).shape
    torch.Size([3, 2])
    """
    at_least(hidden, 1, name="hidden", where="update_rule")
    one_of(nominal, ("adam", "none"), name="nominal", where="update_rule")
    if not 0 < rate < float("inf"):
        raise DomainError(f"rate is {rate!r}", where="update_rule", hint="give a positive number, 0.001 as a rule")
    return UpdateRule(hidden=hidden, nominal=nominal, rate=rate)
