"""Learn an embedding in which a few examples of a new class are enough: its mean stands for it, the nearest mean wins.

Each step draws tasks; ``p(k | q) ∝ exp(−s · ‖f(q) − c_k‖²)`` with ``c_k`` the mean of f over the support of class k, and the loss is
``−log p(label | q)`` (Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.data.augmentation import Augmentation
from mapsto.kinds import Adaptation, Network, Signature
from mapsto.mapping import Context, TasksSource
from mapsto.nn.optimisation import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mapsto.nn.batches import Task, TaskBatches
    from mapsto.nn.edits.head import Head
    from mapsto.nn.training import Training

__all__ = ["Protonet"]


class Protonet(Optimisation, Process[Network, Network]):
    """A learner: the network without its head, trained on episodes, adapting by nearest class mean."""

    tasks: TasksSource
    """What to learn from. More ways than the tasks to come is better (20 for 5; Snell et al., section 3.1)."""
    validation: TasksSource | None = None
    """Held-out tasks, tried at the end of each epoch."""
    validation_episodes: int = Field(default=100, ge=1)
    """How many of them."""
    steps: int = Field(default=1000, ge=1)
    """Gradient steps."""
    epoch: int = Field(default=100, ge=1)
    """Steps after which metrics are averaged and validation is run."""
    tasks_per_step: int = Field(default=4, ge=1)
    """Tasks of a step, in one forward pass; batch norm sees them all."""
    scale: float = Field(default=1.0, gt=0)
    """s, which multiplies the squared distance; 1 in the paper. With `cosine` about 10."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """`cosine` gives embeddings and class means length 1 first; the paper found `euclidean` better for networks trained so."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all ways."""
    leave_one_out: bool = False
    """Every image of a task is a query, against the mean of its class's others: more learnt from
    a forward pass. A task then is `shots` + `queries` images of each class without distinction."""
    augment: Augmentation = Field(default_factory=Augmentation)
    """Random changes of each image."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """The paper's: Adam."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest learning rate of the schedule; 1e-3 in the paper."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty of the weights (decoupled with `adamw`); none in the paper."""

    def start(self, value: Network, ctx: Context) -> State:
        from mapsto.nn.training import first_state

        return first_state(_headless(value)[0], self)

    def items(self, value: Network, ctx: Context) -> TaskBatches:
        from mapsto.nn.batches import TaskBatches

        return TaskBatches(ctx.tasks(self.tasks), self.tasks_per_step, ctx.fabric)

    def open(self, value: Network, state: State, ctx: Context) -> Training:
        import torch

        from mapsto.data import augment
        from mapsto.nn.batches import augmented, scores_and_labels
        from mapsto.nn.training import Plan, Training

        preprocessing, adaptation = value.signature.preprocessing, self._adaptation()

        def loss(call: nn.Module, task: Task) -> Tensor:
            inputs = augmented(
                task.inputs.reshape(-1, *task.inputs.shape[2:]),
                preprocessing,
                lambda batch: augment.apply(batch, self.augment, torch.default_generator),
                ctx.device,
            )
            scores, labels = scores_and_labels(call, inputs, task, adaptation, leave_one_out=self.leave_one_out)
            return torch.nn.functional.cross_entropy(scores, labels, label_smoothing=self.smoothing)

        plan = Plan(optimisation=self, steps=self.steps, epoch=self.epoch)
        module, _, _ = _headless(value)
        return Training(module, state, plan=plan, fabric=ctx.fabric, loss=loss, validate=self._validation(value, ctx))

    def finish(self, value: Network, state: State, ctx: Context) -> Network:
        from mapsto.nn.training import load_result

        module, edit, signature = _headless(value)
        load_result(module, state)
        return value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=self._adaptation())

    def _adaptation(self) -> Adaptation:
        return Adaptation(method="centroid", settings={"scale": self.scale, "distance": self.distance})

    def _validation(self, value: Network, ctx: Context) -> Callable[[nn.Module], dict[str, float]] | None:
        from mapsto.nn.episodes import episode_metrics

        if self.validation is None:
            return None
        episodes = ctx.tasks(self.validation)
        chosen = [episodes[number] for number in range(self.validation_episodes)]
        preprocessing, adaptation = value.signature.preprocessing, self._adaptation()
        return lambda module: episode_metrics(module, preprocessing, adaptation, chosen, device=ctx.device)


def _headless(value: Network) -> tuple[nn.Module, Head | None, Signature]:
    from mapsto.nn.heading import headless

    module = value.module()
    edit, signature = headless(value, module)
    return module, edit, signature
