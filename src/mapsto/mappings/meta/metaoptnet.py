"""Learn an embedding on which a linear support vector machine, fitted to a task, is right about its queries.

``w_k = Σ_n α_nk f(x_n)`` with α the optimum of the dual of a multi-class machine on the support set, scores ``γ w_k · f(q)``; the gradient
flows through the optimum's conditions, and γ is learned (Lee et al., "Meta-Learning with Differentiable Convex Optimization", 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Adaptation, Network
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task

__all__ = ["Metaoptnet"]


class Metaoptnet(Episodic):
    """A learner: the network without its head, trained on episodes, adapting by a support vector machine.

    More shots in training than in the tasks to come are better (15 for 1 and 5; Lee et al., section 4.4).

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, queries=5)
    >>> learner = meta.metaoptnet(tasks=tasks, steps=30, learning_rate=0.01)(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    strength: float = Field(default=0.1, gt=0)
    """C: the inverse of the machine's penalty; 0.1 in the paper."""
    scale: float = Field(default=1.0, gt=0)
    """Where γ begins; 1 in the authors' code."""
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the label that is spread over all ways; 0.1 in the paper."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        from mapsto.nn.meta.adaptation.svm import first_tensors

        tensors = learner.detached() if learner is not None else first_tensors(scale=self.scale)
        return Adaptation(method="svm", settings={"strength": self.strength}, tensors=tensors)

    def loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, ctx: Context) -> Tensor:
        import torch

        labels = torch.as_tensor(task.query_labels, device=inputs.device).flatten()
        scores = learner.scores(inputs, task).flatten(0, 1)
        return torch.nn.functional.cross_entropy(scores, labels, label_smoothing=self.smoothing)
