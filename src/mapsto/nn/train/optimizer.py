"""How a network is trained: the optimiser, its learning rate at every step, and what keeps it in bounds.

The fields are shared by every mapping that trains. The rate is an explicit function of the step, so that a resumed run
goes on as if it had never stopped. This file imports torch only when an optimiser is made.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from collections.abc import Mapping as AbcMapping
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Frozen, Network
from mapsto.mapping import NetworkSource

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Optimisation"]


class Optimisation(Frozen):
    """The fields of every mapping that trains by gradients."""

    optimizer: Literal["sgd", "adam", "adamw", "learned"] = Field(
        default="sgd",
        description=(
            "`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`, at the default "
            "learning rate as it was trained, at twice that with steps twice as long."
        ),
    )
    rule: NetworkSource | None = Field(
        default=None, description="With `learned`: the update rule, as `meta.optimizer` gives it."
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

    def __post_init__(self) -> None:
        if (self.optimizer == "learned") != (self.rule is not None):
            given = "optimizer is learned, but there is no rule" if self.rule is None else "there is a rule"
            needed = "" if self.rule is None else f", but optimizer is {self.optimizer}"
            raise SpecError(
                given + needed,
                where=type(self).__name__,
                hint="give both optimizer: learned and rule, what meta.optimizer has trained, or neither",
            )

    def update_rule(self, ctx: Context) -> Network | None:
        """The rule of `optimizer: learned`, for the plan of a training; None for another optimiser."""
        return ctx.network(self.rule) if self.rule is not None else None

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

    def make(
        self,
        module: nn.Module,
        *,
        fused: bool = False,
        rule: Network | None = None,
        factors: AbcMapping[str, float] | None = None,
        undecayed: Collection[str] = (),
    ) -> torch.optim.Optimizer:
        """The optimiser over the parameters that want gradients, in two groups: those that decay and those that do not.

        `rule` is what `update_rule` gave. With `factors` of parameters by name there are two groups for each, which hold their
        `factor`; `undecayed` ones do not decay. Raises `SpecError` where `learned` is not given a rule, `DomainError` where it is none.
        """
        import torch

        grouped: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                decays = (self.decay_norms or parameter.ndim > 1) and name not in undecayed
                grouped.setdefault((decays, (factors or {}).get(name, 1.0)), []).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": grouped[key], "weight_decay": self.weight_decay if key[0] else 0.0}
            | ({} if factors is None else {"factor": key[1]})
            for key in sorted(grouped, key=lambda key: not key[0])
        ]
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=self.learning_rate, momentum=self.momentum, nesterov=self.momentum > 0, fused=fused
            )
        if self.optimizer == "learned":
            from mapsto.nn.meta.learned_optimizer.rule import LearnedOptimizer, updating_module

            if rule is None:
                raise SpecError("optimizer is learned, but its rule was not resolved", where=type(self).__name__)
            learned = updating_module(rule, where=f"{type(self).__name__}: rule")
            return LearnedOptimizer(groups, learned, lr=self.learning_rate, base=_usual_rate(type(self)))
        adam = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return adam(groups, lr=self.learning_rate, fused=fused)


def _usual_rate(cls: type[Optimisation]) -> float:
    """The default learning rate of a mapping: a learned rule's steps are then as it was trained."""
    fields: dict[str, Any] = cast("Any", cls).__pydantic_fields__
    return float(fields["learning_rate"].default)
