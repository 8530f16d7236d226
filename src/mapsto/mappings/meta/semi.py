"""Learn an embedding in which class means become better by samples without labels, even where many are of no class of the task.

Each class mean is refined by soft k-means over support and unlabelled samples, with one more cluster at the origin for what belongs to
no class; the loss is that of the queries' distances to the refined means (Ren et al., "Meta-Learning for Semi-Supervised Few-Shot
Classification", 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Adaptation, Json, Network
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import TaskBatches

__all__ = ["Semi"]


class Semi(Episodic):
    """A learner: the network without its head, trained on episodes that give unlabelled samples too.

    Tasks give them by their fields `unlabelled` and `distractors`; tasks without any are refused.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, queries=5, unlabelled=3, distractors=2)
    >>> learner = meta.semi(tasks=tasks, steps=30, learning_rate=0.01)(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1, unlabelled=3, distractors=2), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    contract: ClassVar[dict[str, Any]] = {
        "tasks": {"episodes": {"data": {"digits": {"size": 16}}, "ways": 3, "queries": 2, "unlabelled": 2}}
    }

    scale: float = Field(default=1.0, gt=0)
    """What multiplies the squared distance; 1 in the paper."""
    refinements: int = Field(default=1, ge=0)
    """Steps of soft k-means; 1 in the paper, 0 passes unlabelled samples over."""
    distractors: bool = True
    """Whether there is a cluster for samples of no class."""
    radius: float = Field(default=1.0, gt=0)
    """Where that cluster's radius begins, which is learned; the classes' is 1."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        from mapsto.nn.meta.adaptation.soft_kmeans import first_tensors

        first = first_tensors(radius=self.radius) if self.distractors else {}
        settings: dict[str, Json] = {"scale": self.scale, "steps": self.refinements}
        return Adaptation(
            method="soft_kmeans", settings=settings, tensors=learner.detached() if learner is not None else first
        )

    def items(self, value: Network, ctx: Context) -> TaskBatches:
        from mapsto.nn.train.batches import TaskBatches

        episodes = self._checked(self.drawn(ctx), value)
        if self.refinements and episodes[0].unlabelled_indices is None:
            raise DataError(
                "the tasks hold no unlabelled samples",
                where=f"{self.name}: tasks",
                hint="set `unlabelled` of episodes, or use meta.protonet",
            )
        return TaskBatches(episodes, self.tasks_per_step, ctx.fabric, unlabelled=True)
