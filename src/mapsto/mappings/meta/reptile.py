"""Learn first weights by walking towards what each task makes of them: no gradient of a gradient, no support and query sets.

``θ ← θ + ε mean_t (φ_t − θ)`` with φ_t the weights after some steps of mini-batch descent on all samples of task t (Nichol, Achiam and
Schulman, "On First-Order Meta-Learning Algorithms", 2018).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.nn.meta.gradient_based import GradientBased

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.meta.batch_norm import Record
    from mapsto.nn.meta.inner_loop import Inner
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.meta.outer_gradient import Engine
    from mapsto.nn.train.batches import Task

__all__ = ["Reptile"]


class Reptile(GradientBased):
    """A learner whose parameters all adapt to a task by descent, in more steps than it was trained with.

    A task has `shots` + `queries` samples of each class without distinction. The outer step is plain descent along θ − φ, its rate ε is
    `learning_rate`, and the training loss is that of a task's samples after its inner steps.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> tasks = datasets.episodes(data=digits, ways=3, shots=5, queries=5)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = Reptile(tasks=tasks, steps=10, inner_rate=0.01, test_steps=10, engine="threads")(network)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=3, shots=5, queries=5, seed=1), episodes=20)
    >>> bool(new(learner).metrics["accuracy"].value > 60)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2, "test_steps": 2}

    tasks_per_step: int = Field(default=5, ge=1)
    """Tasks of an outer step; 5 in the paper."""
    inner_steps: int = Field(default=5, ge=1)
    """Inner steps in training; 5 for 5 ways, 10 for 20 in the paper."""
    test_steps: int | None = Field(default=50, ge=1)
    """Inner steps in use, on the whole support set; 50 in the paper."""
    inner_rate: float = Field(default=1e-3, gt=0)
    """The inner learning rate; 0.001 with `adam` in the paper."""
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    """The inner steps' rule; `adam` has no momentum (β₁ = 0), as in the paper, and begins anew in each task."""
    inner_batch: int | None = Field(default=10, ge=1)
    """Samples of an inner step in training, from all of a task's in turn, in a random order; 10 for 5 ways in the paper. None for
    all."""
    first_order: Literal[True] = True
    """There is no second order here."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Of the outer step; `sgd` in the paper."""
    learning_rate: float = Field(default=1.0, gt=0)
    """ε, the outer step as a share of the way to φ; falls from 1 in the paper."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Momentum of the outer step; none in the paper."""

    def inner(self) -> Inner:
        update = "adam" if self.inner_optimizer == "adam" else "descend"
        return dataclasses.replace(super().inner(), update=update)

    def _loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, engine: Engine) -> Tensor:
        """All of a task's samples are drawn into one order here, since tasks may run in threads, where chance is not ours."""
        import numpy as np
        import torch

        order = torch.rand(inputs.shape[:2]).argsort(1)
        rows, shots = torch.arange(len(inputs))[:, None], task.support_labels.shape[1]
        labels = np.concatenate([task.support_labels, task.query_labels], 1)[rows.numpy(), order.numpy()]
        shuffled = dataclasses.replace(task, support_labels=labels[:, :shots], query_labels=labels[:, shots:])
        return super()._loss(learner, inputs[rows.to(inputs.device), order.to(inputs.device)], shuffled, step, engine)

    def task_loss(
        self,
        learner: Learner,
        at: Mapping[str, Tensor],
        task: Sequence[Tensor],
        ways: int,
        step: int,
        *,
        functional: bool = False,
        record: Record | None = None,
    ) -> Tensor:
        """A number whose gradient is θ − φ, and whose value is the loss at φ."""
        import torch

        from mapsto.nn.meta import inner_loop

        start, tensors = learner.split(at)
        samples, labels = torch.cat([task[0], task[2]]), torch.cat([task[1], task[3]])
        size = min(self.inner_batch or len(samples), len(samples))
        places = torch.arange(size, device=samples.device)
        call = inner_loop.FunctionalModule(learner.module, self.inner(), tensors, record=record, functional=functional)
        points = inner_loop.inner_path(
            call,
            inner_loop.as_leaves(start, functional=functional),
            samples,
            labels,
            ways,
            steps=self.inner_steps,
            functional=functional,
            draw=lambda number: (number * size + places) % len(samples),
        )
        point = {name: value.detach() for name, value in deque(points, 1)[0].items()}
        with torch.no_grad():
            loss = inner_loop.loss_of(call(point, samples, self.inner_steps), labels)
        displacements = [(value * (value - point[name]).detach()).sum() for name, value in start.items()]
        surrogate_loss = torch.stack(displacements).sum()
        return loss + surrogate_loss - surrogate_loss.detach()
