"""Learn first weights, and a small network that sets the rates and the decay of each inner step from how the task stands.

``θ_{k+1,l} = β_{l,k} θ_{k,l} − α_{l,k} ∇_l L_support(θ_k)`` for each layer l, α and β given by a network that sees the means of every
layer's weights and gradients at step k (Baik, Choi, Choi, Kim and Lee, "Meta-Learning with Adaptive Hyperparameters", 2020).
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

__all__ = ["Alfa"]


class Alfa(GradientBased):
    """A learner that adapts by gradient descent at rates which a network of its own gives at each step.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Alfa(tasks=tasks, steps=20, inner_steps=2, inner_rate=0.1, learning_rate=0.01, engine="threads")(network)
    >>> bool(learner.adaptation.tensors["~alfa.second.weight"].abs().max() > 0)
    True
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=1, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 50)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    inner_rate: float = Field(default=0.01, gt=0)
    """The rate of every layer and step with which training begins; 0.01 in the paper."""
    inner_decay: float = Field(default=5e-4, ge=0, lt=1)
    """The decay of every layer and step with which training begins: the share of a weight that goes; 0.0005 in the paper."""

    def inner(self) -> Inner:
        return dataclasses.replace(super().inner(), update="alfa")

    def first_tensors(self, value: Network) -> dict[str, Tensor]:
        from mapsto.nn.meta.updates import alfa

        return alfa.first_tensors(self.first_rates(value), steps=self.inner_steps, decay=self.inner_decay)
