"""How a network is trained: the optimiser, its learning rate at every step, and what keeps it in bounds.

The fields are shared by every mapping that trains. The rate is an explicit function of the step, so that a resumed run
goes on as if it had never stopped. This file imports torch only when an optimiser is made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Frozen

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Optimisation"]


class Optimisation(Frozen):
    """The fields of every mapping that trains by gradients."""

    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        default="sgd", description="`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999)."
    )
    learning_rate: float = Field(default=0.1, gt=0, description="The highest learning rate of the schedule.")
    schedule: Literal["cosine", "onecycle", "constant", "plateau"] = Field(
        default="cosine",
        description=(
            "`cosine` falls from the highest rate to 0; `onecycle` first rises from 1/25 of it over 30 % of the steps; "
            "`plateau` divides it by 10 after `patience` epochs without a better loss."
        ),
    )
    warmup: int = Field(default=0, ge=0, description="Steps over which the rate first rises linearly from 0.")
    patience: int = Field(default=5, ge=1, description="Epochs without a better loss before `plateau` lowers the rate.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of `sgd`, 0 to 1.")
    weight_decay: float = Field(default=5e-4, ge=0, description="L2 penalty of the weights (decoupled with `adamw`).")
    decay_norms: bool = Field(
        default=False, description="Whether biases and the parameters of normalisations decay too."
    )
    keep_statistics: bool = Field(
        default=False,
        description="Whether batch norms keep their means and variances: for pretrained networks, whose own are better.",
    )
    clip: float | None = Field(default=None, gt=0, description="Highest norm of the gradient; None for no limit.")
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of an average of the weights over steps, which then is the result; 0 for none. Such as 0.999.",
    )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 … steps - 1, before any lowering on a plateau.

        >>> [round(Optimisation(learning_rate=1.0).rate(step, 4), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
        >>> [round(Optimisation(learning_rate=1.0, schedule="onecycle").rate(step, 10), 2) for step in (0, 3, 9)]
        [0.04, 1.0, 0.05]
        """
        rising = self.warmup
        start, factor = 0.0, 1.0
        if self.schedule == "onecycle":
            rising, start = round(0.3 * steps), 1 / 25
        if step < rising:
            share = (step + (self.schedule != "onecycle")) / rising
            factor = start + (1 - start) * share
        elif self.schedule in ("cosine", "onecycle"):
            factor = (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1))) / 2
        return self.learning_rate * factor

    def make(self, module: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
        """The optimiser over the parameters that want gradients, in two groups: those that decay and those that do not."""
        import torch

        wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
        decaying = [parameter for parameter in wanted if self.decay_norms or parameter.ndim > 1]
        kept = [parameter for parameter in wanted if not self.decay_norms and parameter.ndim <= 1]
        groups = [
            {"params": parameters, "weight_decay": decay}
            for parameters, decay in ((decaying, self.weight_decay), (kept, 0.0))
            if parameters
        ]
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0, fused=fused
            )
        adam = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return adam(groups, lr=self.learning_rate, fused=fused)
