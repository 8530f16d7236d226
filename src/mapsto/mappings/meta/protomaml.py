"""Begin the inner loop where prototypical networks end: the head's first weights are the class means, for any number of ways.

``W_k = 2 c_k, b_k = −‖c_k‖²`` from the support set, then ``θ ← θ − α ∇ L_support(θ)`` of all parameters, with gradients through the class
means too (Triantafillou et al., "Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples", 2020).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.nn.meta.gradient_based import GradientBased

if TYPE_CHECKING:
    from mapsto.nn.meta.inner_loop import Inner

__all__ = ["Protomaml"]


class Protomaml(GradientBased):
    """A learner whose parameters and head, which begins as the class means, adapt to a task by gradient descent.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, queries=5)
    >>> learner = meta.protomaml(tasks=tasks, steps=8, inner_steps=1, learning_rate=0.01, engine="loop")(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    version: ClassVar[int] = 3
    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    head: Literal["prototype"] = "prototype"  # type: ignore[assignment]
    """Always the class means."""
    inner_rate: float = Field(default=0.01, gt=0)
    """α, the inner learning rate: smaller than MAML's, since the head is good from the beginning."""

    def inner(self) -> Inner:
        return dataclasses.replace(super().inner(), head="prototype")
