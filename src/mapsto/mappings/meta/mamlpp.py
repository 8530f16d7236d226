"""MAML made steady: rates of each layer and step, a loss at every inner step, batch norms of their own for each, cheap steps first.

``min_{θ,α} Σ_t Σ_k w_k L_query(θ_k)`` with ``θ_{k+1,l} = θ_{k,l} − α_{l,k} ∇_l L_support(θ_k)``; the weights w_k go from all alike to the
last step alone (Antoniou, Edwards and Storkey, "How to Train Your MAML", 2019).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import Network
from mapsto.nn.meta.gradient_based import GradientBased

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.inner_loop import Inner

__all__ = ["Mamlpp"]

_LEAST = 0.03
"""What is left of the first weight of each step but the last, in the paper's own code."""


class Mamlpp(GradientBased):
    """A learner that adapts by gradient descent at learned rates of each layer and step.

    The outer rate falls along a cosine, as all mappings' here. Batch norms have scales and shifts of their own at each inner step, which
    are trained and not adapted.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Mamlpp(tasks=tasks, steps=8, inner_steps=2, learning_rate=0.01)(network)
    >>> learner.adaptation.tensors["~rates.features.0.0.weight"].shape
    torch.Size([2])
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=1, queries=5, seed=1), episodes=20,
    ...                         batch_norm="both")
    >>> bool(new(learner).metrics["transductive"].value > 50)
    True
    >>> [round(weight, 2) for weight in Mamlpp(tasks=tasks, inner_steps=2).weights(0)]
    [0.0, 0.5, 0.5]
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    inner_rate: float = Field(default=0.1, gt=0)
    """The rate with which every layer and step begins; 0.1 for Omniglot in the paper."""
    batch_norm: Literal["transductive", "inductive", "per_step", "none"] = "per_step"
    """`per_step`: in use the running statistics of each inner step, as the paper says; `transductive`: those of each batch, as
    its authors' code computes, and better where training is short; the others as in MAML."""
    multi_step: float = Field(default=0.1, ge=0, le=1)
    """Share of the training over which the loss after every inner step counts, less and less; 10 of 100 epochs in the paper."""
    cheap: float = Field(default=0.5, ge=0, le=1)
    """Share of the training that is first order, before the second order (derivative-order annealing); 50 of 100 epochs in
    the paper."""

    def inner(self) -> Inner:
        return dataclasses.replace(super().inner(), update="layerwise")

    def first_tensors(self, value: Network) -> dict[str, Tensor]:
        import torch

        from mapsto.nn.meta.batch_norm import norm_paths
        from mapsto.nn.meta.updates.layerwise import rate_name

        found: dict[str, Tensor] = {}
        moving = self.moving(value)
        for path in norm_paths(value.module()):
            for name in (f"{path}.weight" if path else "weight", f"{path}.bias" if path else "bias"):
                if name in value.tensors:
                    moving.pop(name, None)
                    found |= {f"{name}@{step}": value.tensors[name].clone() for step in range(self.inner_steps + 1)}
        rates = self.first_rates(value)
        return found | {rate_name(name): torch.full((self.inner_steps,), rates[name]) for name in moving}

    def weights(self, step: int) -> list[float]:
        """All steps alike at first, then the last step's grows to 1 over the share `multi_step` of the training."""
        done = min(1.0, step / (self.multi_step * self.steps)) if self.multi_step else 1.0
        others = 0.0 if done >= 1 else max(1 - done, _LEAST) / self.inner_steps
        return [0.0, *[others] * (self.inner_steps - 1), 1 - others * (self.inner_steps - 1)]

    def second_order(self, step: int) -> bool:
        return not self.first_order and step >= self.cheap * self.steps
