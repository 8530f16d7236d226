"""Learn first weights together with a learning rate for every single one of them: initialisation, direction and rate in one.

``min_{θ,a} Σ_t L_query(θ − a ∘ ∇L_support(θ))`` with a of the shape of θ (Li, Zhou, Chen and Li, "Meta-SGD: Learning to Learn Quickly
for Few-Shot Learning", 2017).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.kinds import Network
from mapsto.nn.meta.gradient_based import GradientBased

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.inner_loop import Inner

__all__ = ["Metasgd"]


class Metasgd(GradientBased):
    """A learner whose parameters adapt to a task at rates of their own, which pruning slices with them.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Metasgd(tasks=tasks, steps=20, learning_rate=0.01, engine="threads")(network)
    >>> rates = learner.adaptation.tensors["features.0.0.weight"]
    >>> rates.shape == learner.tensors["features.0.0.weight"].shape, bool(rates.std() > 0)
    (True, True)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=1, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 45)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    inner_steps: int = Field(default=1, ge=1)
    """Inner steps in training; 1 in Li et al."""
    inner_rate: float = Field(default=0.1, gt=0)
    """The rate with which every parameter begins; the paper draws them from 0.005 to 0.1."""

    def inner(self) -> Inner:
        return dataclasses.replace(super().inner(), update="parameterwise")

    def first_tensors(self, value: Network) -> dict[str, Tensor]:
        import torch

        rates = self.first_rates(value)
        return {name: torch.full_like(tensor, rates[name]) for name, tensor in self.moving(value).items()}
