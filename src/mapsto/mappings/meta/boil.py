"""Learn first weights whose embedding, not whose classifier, moves to a task: MAML whose inner loop leaves the head as it is.

``min_{θ,W} Σ_t L_query(θ − α ∇_θ L_support(θ, W), W)``, with the head W trained in the outer loop only: what changes is the
representation (Oh, Yoo, Kim and Yun, "BOIL: Towards Representation Change for Few-shot Learning", 2021).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from mapsto.nn.meta.gradient_based import GradientBased

__all__ = ["Boil"]


class Boil(GradientBased):
    """A learner whose body adapts to a task by gradient descent, under a head that is the same for all tasks.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Boil(tasks=tasks, steps=20, learning_rate=0.01, engine="threads")(network)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=1, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 45)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    inner_steps: int = Field(default=1, ge=1)
    """Inner steps in training; 1 in Oh et al."""
    inner_rate: float = Field(default=0.5, gt=0)
    """α, the inner learning rate; 0.5 for Conv4 in Oh et al."""
    adapts: Literal["body"] = "body"
    """What the inner steps change: all but the head."""
    head: Literal["learned"] = "learned"
    """The head is trained: through one that is 0 no gradient would reach the body."""
