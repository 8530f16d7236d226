"""Learn an embedding in which a few examples of a new class are enough: its mean stands for it, the nearest mean wins.

Each step draws tasks; ``p(k | q) ∝ exp(−s · ‖f(q) − c_k‖²)`` with ``c_k`` the mean of f over the support of class k, and the loss is
``−log p(label | q)`` (Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Adaptation, Network
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task

__all__ = ["Protonet"]


class Protonet(Episodic):
    """A learner: the network without its head, trained on episodes, adapting by nearest class mean.

    More ways in training than in the tasks to come is better (20 for 5; Snell et al., section 3.1).
    """

    scale: float = Field(default=1.0, gt=0)
    """s, which multiplies the squared distance; 1 in the paper. With `cosine` about 10."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """`cosine` gives embeddings and class means length 1 first; the paper found `euclidean` better for networks trained so."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all ways."""
    leave_one_out: bool = False
    """Every image of a task is a query, against the mean of its class's others: more learnt from
    a forward pass. A task then is `shots` + `queries` images of each class without distinction."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        return Adaptation(method="centroid", settings={"scale": self.scale, "distance": self.distance})

    def loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, ctx: Context) -> Tensor:
        from torch.nn.functional import cross_entropy

        from mapsto.nn.train.batches import scores_and_labels

        scores, labels = scores_and_labels(
            learner.network, inputs.flatten(0, 1), task, learner.adaptation, leave_one_out=self.leave_one_out
        )
        return cross_entropy(scores, labels, label_smoothing=self.smoothing)
