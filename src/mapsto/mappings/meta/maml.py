"""Learn first weights from which a few steps of gradient descent on a few examples are enough.

``min_θ Σ_t L_query(θ − α ∇ L_support(θ))`` over tasks t, with gradients through the inner steps; with `first_order` without (Finn,
Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017).
"""

from __future__ import annotations

from typing import Any, ClassVar

from mapsto.nn.meta.gradient_based import GradientBased

__all__ = ["Maml"]


class Maml(GradientBased):
    """A learner whose parameters all adapt to a task by gradient descent.

    With ``adapts: adapters`` after an `adapt.lora` step only the adapters and the head move.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Maml(tasks=tasks, steps=20, inner_steps=2, inner_rate=0.1, learning_rate=0.01, engine="threads")(network)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=1, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 60)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}
