"""Learn an embedding on which ridge regression, fitted to a task in closed form, is right about its queries.

``W = Xᵀ (X Xᵀ + λ I)⁻¹ Y`` on the support set's embeddings X and one-hot labels Y, scores ``α Wᵀ f(q) + β``; the gradient flows through
the solution, and α, β and λ are learned too (Bertinetto et al., "Meta-learning with Differentiable Closed-form Solvers", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.kinds import Adaptation, Network
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from mapsto.nn.meta.learner_module import Learner

__all__ = ["R2d2"]


class R2d2(Episodic):
    """A learner: the network without its head, trained on episodes, adapting by ridge regression, to numbers too.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, queries=5)
    >>> learner = meta.r2d2(tasks=tasks, steps=30, learning_rate=0.01)(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    penalty: float = Field(default=10.0, gt=0)
    """Where λ begins; it goes with the squared length of embeddings."""
    scale: float = Field(default=5.0, gt=0)
    """Where α begins: a score of 1 is a sure answer only if it is multiplied."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        from mapsto.nn.meta.adaptation.ridge import first_tensors

        first = first_tensors(penalty=self.penalty, scale=self.scale)
        return Adaptation(method="ridge", tensors=learner.detached() if learner is not None else first)

    def predicts_values(self) -> bool:
        return True
