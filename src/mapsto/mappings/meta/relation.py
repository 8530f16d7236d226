"""Learn an embedding and, with it, how to compare: a small network says how much a query and a class belong together.

``min Σ_{q,k} (r(q, k) − [label(q) = k])²`` with ``r = sigmoid(g(mean_{i in k} f(x_i), f(q)))`` and g learned (Sung et al., "Learning to
Compare: Relation Network for Few-Shot Learning", 2018).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Network
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task

__all__ = ["Relation"]


class Relation(Episodic):
    """A learner: the network without its head and a comparison, which are trained together on episodes.

    Raises `DomainError` where the embedding is no square feature map of `channels` channels.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, queries=5)
    >>> learner = meta.relation(tasks=tasks, steps=60, learning_rate=0.01)(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    hidden: int = Field(default=64, ge=1)
    """Width of the comparison's first layer, or of its convolutions; 64 in the paper."""
    last: int = Field(default=8, ge=1)
    """Width of its last hidden layer; 8 in the paper."""
    channels: int | None = Field(default=None, ge=1)
    """Channels of the square feature map that the embedding is, which then is convolved as in the paper; None for a row of
    numbers. A conv4 of 2 blocks and width 64 gives maps of 64."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        from mapsto.nn.meta.adaptation.relation import first_tensors

        settings = {} if self.channels is None else {"channels": self.channels}
        if learner is not None:
            return Adaptation(method="relation", settings=settings, tensors=learner.detached())
        size = int(value.signature.outputs[0].shape[-1])
        if self.channels is not None and math.isqrt(size // self.channels) ** 2 * self.channels != size:
            raise DomainError(
                f"an embedding of {size} numbers is no square feature map of {self.channels} channels",
                where="meta.relation: channels",
                hint="give the width of the network's last layer, or leave channels out",
            )
        tensors = first_tensors(size=size, hidden=self.hidden, last=self.last, channels=self.channels)
        return Adaptation(method="relation", settings=settings, tensors=tensors)

    def loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, ctx: Context) -> Tensor:
        import torch

        from mapsto.nn.meta.class_means import members

        relations = learner.scores(inputs, task).sigmoid()
        labels = torch.as_tensor(task.query_labels, device=inputs.device)
        return torch.nn.functional.mse_loss(relations, members(labels, task.ways).to(relations.dtype))
