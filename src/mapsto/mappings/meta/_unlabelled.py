"""What learners from data without labels share: which learner is trained, and the form of tasks without a look at labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Adaptation, Episodes, Network, Samples, Signature, Tasks
from mapsto.nn.meta.gradient_based import GradientBased
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.kinds import Edit
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task

__all__ = ["Form", "Unlabelled"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """What tasks are made of."""

    samples: Samples
    """Without their labels."""
    ways: int
    shots: int
    queries: int
    seed: int


class Unlabelled(GradientBased):
    """The fields of learners from data without labels; those of the inner loop are for ``by: maml``."""

    by: Literal["maml", "protonet"] = Field(
        default="maml",
        description="What is trained: `maml` adapts by gradient descent, `protonet` by nearest class mean.",
    )

    # -- the tasks

    def own_tasks(self, form: Form, ctx: Context) -> Episodes:
        """Tasks of that form, made without labels."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it makes tasks")

    def drawn(self, ctx: Context) -> Episodes:
        from mapsto.data.sets.clustered import Clustered
        from mapsto.data.sets.umtra import Umtra

        tasks: Any = ctx.resolve(self.tasks, Tasks)
        if isinstance(tasks, (Umtra, Clustered)):
            return ctx.tasks(self.tasks)
        if not all(hasattr(tasks, name) for name in ("data", "ways", "shots", "queries", "seed")):
            raise DataError(
                "these tasks are not drawn from a data set",
                where=f"{self.name}: tasks",
                hint="give episodes: {data: …}, whose labels are not read, or umtra or clustered tasks",
            )
        samples = ctx.dataset(tasks.data)
        return self.own_tasks(
            Form(
                samples=_without_labels(samples),
                ways=tasks.ways,
                shots=tasks.shots,
                queries=tasks.queries,
                seed=tasks.seed,
            ),
            ctx,
        )

    # -- the learner

    def ways(self, episodes: Episodes) -> int | None:
        return super().ways(episodes) if self.by == "maml" else None

    def predicts_values(self) -> bool:
        return False

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        if self.by == "maml":
            return super().adaptation(value, learner)
        return Adaptation(method="centroid", settings={"scale": 1.0, "distance": "euclidean"})

    def learner(self, value: Network, ctx: Context) -> tuple[Learner, tuple[Edit, ...], Signature]:
        return super().learner(value, ctx) if self.by == "maml" else Episodic.learner(self, value, ctx)

    def chosen(self, learner: Learner, ctx: Context) -> dict[str, Any]:
        return super().chosen(learner, ctx) if self.by == "maml" else Episodic.chosen(self, learner, ctx)

    def loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, ctx: Context) -> Tensor:
        if self.by == "maml":
            return super().loss(learner, inputs, task, step, ctx)
        return Episodic.loss(self, learner, inputs, task, step, ctx)


def _without_labels(samples: Samples) -> Samples:
    import numpy as np

    return dataclasses.replace(samples, labels=np.zeros(len(samples), np.int64), classes=("",))
