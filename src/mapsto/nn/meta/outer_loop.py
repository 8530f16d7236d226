"""The one outer loop: a learner trained on tasks, by whatever loss of its adaptation its mapping says.

A mapping of the family `meta` says how its learner adapts (`Adaptation`), what is trained besides the network, and the loss of a batch
of tasks; this file does the rest: fields, items, augmentation, validation, training, and the learner that comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Adaptation, Episodes, Network, Signature
from mapsto.mapping import TasksSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.kinds import Edit
    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task, TaskBatches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Episodic"]


class Episodic(Optimisation, Process[Network, Network]):
    """The fields and the loop of every mapping that trains a learner on tasks."""

    tasks: TasksSource = Field(description="What to learn from.")
    validation: TasksSource | None = Field(default=None, description="Held-out tasks, tried at the end of each epoch.")
    validation_episodes: int = Field(default=100, ge=1, description="How many of them.")
    steps: int = Field(default=1000, ge=1, description="Gradient steps.")
    epoch: int = Field(default=100, ge=1, description="Steps after which metrics are averaged and validation is run.")
    tasks_per_step: int = Field(default=4, ge=1, description="Tasks of a step, whose losses are averaged.")
    augment: Augmentations = Field(default=(), description="Random changes of each sample, in order.")
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = Field(
        default="adam", description="The usual one here is Adam."
    )
    feature_noise: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description=(
            "Strength of random scales and shifts of every batch norm's output in training, for tasks of other domains "
            "(Tseng et al., 2020); 1 for deviations of 0.3 and 0.5 as in the paper, 0 for none."
        ),
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="The highest learning rate of the schedule.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="L2 penalty of the weights (decoupled with `adamw`); usually none here."
    )

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        why = "the labels of a task stand for its own classes, and support and query samples are apart"
        refuse_mixing(self.augment, why, where=self.name, by_class=True)

    # -- what a mapping says

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        """How the learner adapts, with the tensors of `learner`; without one, the first values of those to be trained."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its learner adapts")

    def drawn(self, ctx: Context) -> Episodes:
        """The tasks to learn from."""
        return ctx.tasks(self.tasks)

    def ways(self, episodes: Episodes) -> int | None:
        """Outputs of a head that is trained and belongs to the learner, one a class or one a number to predict; None
        where the network gives embeddings.
        """
        return None

    def predicts_values(self) -> bool:
        """Whether it can learn tasks of regression."""
        return False

    def loss(self, learner: Learner, inputs: Tensor, task: Task, step: int, ctx: Context) -> Tensor:
        """The loss of a batch of tasks, a scalar, differentiable in `learner`'s parameters.

        `inputs` are the tasks' samples prepared and augmented, shape (B, S + Q, ...).
        """
        import torch

        scores = learner.scores(inputs, task)
        labels = torch.as_tensor(task.query_labels, device=inputs.device)
        from mapsto.nn.meta.inner_loop import loss_of

        return loss_of(scores.flatten(0, 1), labels.flatten(0, 1))

    def is_whole(self, learner: Learner) -> bool:
        """Whether the loss calls the network as a whole, and looks for none of its layers."""
        from mapsto.nn.meta.adaptation_methods import feature_method

        return not self.feature_noise and feature_method(learner.adaptation.method) is not None

    # -- the process

    def chosen(self, learner: Learner, ctx: Context) -> dict[str, Any]:
        """What is chosen where training begins, and never again."""
        return {}

    def items(self, value: Network, ctx: Context) -> TaskBatches:
        from mapsto.nn.train.batches import TaskBatches

        return TaskBatches(self._checked(self.drawn(ctx), value), self.tasks_per_step, ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.train.loop import Training, TrainingPlan

        learner, _, _ = self.learner(value, ctx)
        learner.chosen = self.chosen(learner, ctx) if state is None else state.get("chosen", {})
        learner.objective = self.objective(value, ctx)
        prepared = self._prepared(value, ctx)
        training: Training
        plan = TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.steps, epoch=self.epoch)
        training = Training(
            learner,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=lambda call, task: call(prepared(task), task, training.step),
            result=lambda load: self._result(value, load, ctx),
            validate=self._validation(value, ctx),
            fused=self.is_whole(learner),
            chosen=learner.chosen,
        )
        return training

    def _result(self, value: Network, load: Load, ctx: Context) -> Network:
        learner, edits, signature = self.learner(value, ctx)
        load(learner)
        adaptation = self.adaptation(value, learner)
        return value.with_module(learner.network, *edits, signature=signature, adaptation=adaptation)

    def learner(self, value: Network, ctx: Context) -> tuple[Learner, tuple[Edit, ...], Signature]:
        """The learner before training, how its network comes from `value`, and its signature."""
        from mapsto.nn.meta.feature_wise_transform import channels
        from mapsto.nn.meta.learner_module import Learner
        from mapsto.nn.network.build import with_output
        from mapsto.nn.network.head import headed, headless

        module = value.module()
        episodes = self.drawn(ctx)
        ways = self.ways(episodes)
        if ways is None:
            edit, signature = headless(value, module)
        else:
            edit, _ = headed(value, module, [str(way) for way in range(ways)], fresh=value.adaptation is None)
            answers = "classes" if episodes.ways else "values"
            signature = with_output(value.signature, ways, None, answers=answers)
        network = value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=None)
        learner = Learner(module, self.adaptation(network, None))
        if self.feature_noise:
            channels(module)
        if not any(parameter.requires_grad for parameter in learner.parameters()):
            raise DomainError(
                "the network has no parameters to train",
                where=self.name,
                hint="give it layers (networks.mlp: widths), or use it as it is: evaluate.episodes compares its embeddings",
            )
        return learner, (edit,) if edit else (), signature

    def objective(self, value: Network, ctx: Context) -> Callable[[Learner, Tensor, Task, int], Tensor]:
        """The loss of a step, of (learner, inputs, task, step); what it needs besides is made here, once."""
        return lambda learner, inputs, task, step: self._objective(learner, inputs, task, step, value, ctx)

    def _objective(
        self, learner: Learner, inputs: Tensor, task: Task, step: int, value: Network, ctx: Context
    ) -> Tensor:
        """The loss, with feature noise drawn anew for the step."""
        from mapsto.nn.meta.feature_wise_transform import noise, transformed

        if not self.feature_noise:
            return self.loss(learner, inputs, task, step, ctx)
        with transformed(learner.network, noise(learner.network, self.feature_noise)):
            return self.loss(learner, inputs, task, step, ctx)

    def _checked(self, episodes: Episodes, value: Network) -> Episodes:
        """The episodes. Raises `DataError` where a task's samples hold NaN, are not what the network takes, or ask for numbers."""
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_finite

        require_fitting(self.augment, episodes.samples, where=f"{self.name}: augment")
        require_finite(episodes.samples.inputs, where=f"{self.name}: tasks")
        if not episodes.ways and not self.predicts_values():
            raise DataError(
                "the tasks ask for numbers, this learner tells classes",
                where=f"{self.name}: tasks",
                hint="choose a learner that adapts by gradient descent (meta.maml), or tasks of classes",
            )
        if value.signature.preprocessing.kind == "none":
            wanted, given = value.signature.inputs[0].shape[1:], episodes.samples.inputs.shape[1:]
            if tuple(wanted) != tuple(given):
                raise DataError(
                    f"the network takes samples of shape {tuple(wanted)}, the tasks give {tuple(given)}",
                    where=f"{self.name}: tasks",
                    hint="choose a network of that input, or other tasks",
                )
        return episodes

    def _prepared(self, value: Network, ctx: Context) -> Callable[[Task], Tensor]:
        from mapsto.nn.network.preprocess import prepare
        from mapsto.nn.train.augmenter import Augmenter

        augmenter = Augmenter(self.augment, ctx, ctx.tasks(self.tasks).samples if self.augment else None)

        def prepared(task: Task) -> Tensor:
            samples = augmenter.changed(task.inputs.reshape(-1, *task.inputs.shape[2:]), task.step)
            return prepare(samples, value.signature.preprocessing, device=ctx.device).unflatten(
                0, task.inputs.shape[:2]
            )

        return prepared

    def _validation(self, value: Network, ctx: Context) -> Callable[[Any], dict[str, float]] | None:
        from mapsto.nn.meta.evaluation import episode_metrics

        if self.validation is None:
            return None
        episodes = ctx.tasks(self.validation)
        chosen = [episodes[number] for number in range(self.validation_episodes)]
        preprocessing = value.signature.preprocessing

        def validate(learner: Learner) -> dict[str, float]:
            adaptation = self.adaptation(value, learner)
            return episode_metrics(learner.network, preprocessing, adaptation, chosen, device=ctx.device)

        return validate
