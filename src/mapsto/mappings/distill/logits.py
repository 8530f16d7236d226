"""Teach a small network what a large one answers: its softened scores say how alike the classes look.

``α T² · D(softmax(t / T), softmax(s / T)) + (1 − α) · CE(y, s)`` with teacher's scores t, student's s, temperature T (Hinton, Vinyals and
Dean, "Distilling the Knowledge in a Neural Network", 2015). Over tasks, scores are those that each learner gives the queries
after adapting to the same support. `features` adds ``‖ψ(t) − ψ(s)‖`` of the pairwise distances ψ between embeddings, in units of
their mean, by a Huber loss (Park et al., "Relational Knowledge Distillation", 2019).

Softmax is for classes of which one is right. Of a teacher whose signature answers labels, D is each label's binary cross-entropy with the
teacher's softened probability; of one that gives values, and of dense outputs without classes, the mean squared difference; of dense
outputs (N, C, H, W) with C classes, D is taken pixel by pixel.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations, Drawn, refuse_mixing
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Adaptation, Network, Samples, Signature
from mapsto.mapping import DataSource, NetworkSource, TasksSource
from mapsto.nn.distill.loop import shared_classes
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Items, Process, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.train.batches import Batch, Task
    from mapsto.nn.train.label_kinds import Kind
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Logits"]


class Logits(Optimisation, Process[Network, Network]):
    """The student, the network that is given, trained to answer as `teacher` does on `data` or on `tasks`.

    Without a single label:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> trained = Logits(data=digits, teacher=teacher, alpha=1, epochs=6, batch_size=50)(student)
    >>> before, after = (evaluate.difference(teacher=teacher, data=digits)(each).metrics for each in (student, trained))
    >>> before["agreement"].value < 50 < after["agreement"].value
    True
    """

    version: ClassVar[int] = 3

    teacher: NetworkSource
    """The network to imitate: on `data` one of the same classes, labels, values or dense outputs, on `tasks` a learner or any network."""
    data: DataSource | None = None
    """Labelled samples; with `alpha` 1, as for dense outputs, labels are not used, and a pool without serves. Give these or `tasks`."""
    tasks: TasksSource | None = None
    """Episodes; the result is a learner that adapts as the teacher does."""
    validation: DataSource | None = None
    """Held-out data, tried at the end of each epoch (with `data`)."""
    validation_tasks: TasksSource | None = None
    """Held-out tasks, 100 of which are tried at the end of each epoch (with `tasks`)."""
    epochs: int = Field(default=10, ge=1)
    """Passes over `data`."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of a step, with `data`."""
    steps: int = Field(default=1000, ge=1)
    """Gradient steps, with `tasks`."""
    tasks_per_step: int = Field(default=4, ge=1)
    """Tasks of a step, with `tasks`."""
    epoch: int = Field(default=100, ge=1)
    """Steps after which metrics are averaged and validation is run, with `tasks`."""
    distinct_steps: int | None = Field(default=None, ge=1)
    """With `tasks`: so many steps draw tasks and random changes of their images; those after them go through the same again, each time in
    a new order, and the teacher answers each once. For a teacher that is much larger than the student: its forward pass is most of a
    step. None: every step draws its own."""
    leave_one_out: bool = False
    """With `tasks`: every image of a task is a query, against the mean of its class's others."""
    alpha: float = Field(default=0.9, ge=0, le=1)
    """Weight of the teacher's answers; the labels weigh 1 - alpha."""
    temperature: float = Field(default=4.0, gt=0)
    """T: higher shows more of how the teacher ranks the wrong classes; 4 is usual for CIFAR (Tian et al., 2020)."""
    difference: Literal["kl", "euclidean", "cosine"] = "kl"
    """D, by which the answers differ."""
    class_weights: Literal["none", "balanced"] = "none"
    """With `data`: `balanced` has each class of the labels weigh as much as any other, however few its samples."""
    features: float = Field(default=0.0, ge=0)
    """Weight of the difference between the embeddings' pairwise distances; 25 in Park et al., 0 for none."""
    augment: Augmentations = ()
    """Random changes of each sample, in order, the same for teacher and student. What mixes samples goes with `data` only."""
    learning_rate: float = Field(default=0.05, gt=0)
    """The highest learning rate of the schedule."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data is None) == (self.tasks is None):
            raise SpecError(
                "give either data or tasks", where="distill.logits", hint="tasks for a learner, data for a classifier"
            )
        if self.tasks is not None:
            why = "the labels of a task stand for its own classes, and support and query samples are apart"
            refuse_mixing(self.augment, why, where="distill.logits", by_class=True)
        if self.distinct_steps is not None and self.tasks is None:
            raise SpecError(
                "distinct_steps goes with tasks, but there is data",
                where="distill.logits",
                hint="leave distinct_steps out: the steps of data are set by epochs and batch_size",
            )

    def items(self, value: Network, ctx: Context) -> Items:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_finite, require_some
        from mapsto.nn.train.batches import Batches, RepeatedTasks, TaskBatches
        from mapsto.nn.train.label_kinds import kind_of

        if self.tasks is not None:
            episodes = ctx.tasks(self.tasks, also=[ctx.network(self.teacher)])
            if not episodes.ways:
                raise DomainError(
                    "the tasks ask for values, but over tasks it compares scores of classes",
                    where="distill.logits: tasks",
                    hint="use distill.meta, which imitates values too, or give tasks of classes",
                )
            require_fitting(self.augment, episodes.samples, where="distill.logits: augment")
            tasks = TaskBatches(episodes, self.tasks_per_step, ctx.fabric)
            if self.distinct_steps is None:
                return tasks
            return RepeatedTasks(tasks, self.distinct_steps, lambda number: ctx.random("order", number))
        samples = require_some(self.samples(ctx), where="distill.logits")
        require_finite(samples.inputs, where="distill.logits: data")
        require_fitting(self.augment, samples, where="distill.logits: augment", targets=kind_of(samples.labels))
        return Batches(samples, self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.train.batches import Batches
        from mapsto.nn.train.loop import Training, TrainingPlan

        items = self.items(value, ctx)
        plan = TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.steps, epoch=self.epoch)
        if isinstance(items, Batches):
            plan = TrainingPlan(
                optimisation=self,
                rule=self.update_rule(ctx),
                steps=self.epochs * items.per_epoch,
                epoch=items.per_epoch,
            )
        module = self._student(value, ctx)[0]
        objective = _Objective(self, value, module, ctx)
        return Training(
            module,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=objective,
            result=lambda load: self._result(value, load, ctx),
            validate=objective.validation(),
            fused=self.tasks is not None or not self.features,
        )

    def _result(self, value: Network, load: Load, ctx: Context) -> Network:
        module, edit, signature = self._student(value, ctx)
        adaptation = self.adaptation(value, ctx) if self.tasks is not None else None
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=adaptation)

    def adaptation(self, value: Network, ctx: Context) -> Adaptation:
        """The student's own way of adapting, else the teacher's."""
        from mapsto.nn.meta.adaptation_methods import CENTROID

        if value.adaptation is not None:
            return value.adaptation
        own = ctx.network(self.teacher).adaptation or CENTROID
        return dataclasses.replace(own, tensors={})

    def samples(self, ctx: Context) -> Samples:
        """The data, read so that both networks can take them."""
        return ctx.dataset(self.data, also=[ctx.network(self.teacher)])

    def _student(self, value: Network, ctx: Context) -> tuple[nn.Module, Head | None, Signature]:
        from mapsto.nn.network.head import headed, headless
        from mapsto.nn.train.label_kinds import ANSWERS

        module = value.module()
        if self.tasks is not None:
            return module, *headless(value, module)
        samples, teacher = self.samples(ctx), ctx.network(self.teacher).signature
        if teacher.is_dense or value.signature.is_dense:
            return module, None, self._dense(value.signature, teacher)
        answers = ANSWERS[self.kind(samples, teacher)]
        unlabelled = self.alpha == 1 and not samples.classes and teacher.classes is not None
        classes = teacher.classes if unlabelled else shared_classes(samples, teacher, where="distill.logits")
        edit, signature = headed(value, module, cast("tuple[str, ...]", classes))
        return module, edit, dataclasses.replace(signature, answers=answers)

    def kind(self, samples: Samples, teacher: Signature) -> Kind:
        """What is imitated. Raises `DomainError` where the teacher's answers are not what the labels are."""
        from mapsto.nn.train.label_kinds import ANSWERS, kind_of

        found = kind_of(samples.labels)
        if teacher.answers not in ("classes", ANSWERS[found]):
            if self.alpha == 1 and found == "classification":
                return next(kind for kind, answers in ANSWERS.items() if answers == teacher.answers)
            raise DomainError(
                f"the teacher answers {teacher.answers}, but the labels, {samples.labels.dtype} of shape {samples.labels.shape}, "
                f"are {ANSWERS[found]}",
                where="distill.logits",
                hint=f"give data whose labels are {teacher.answers}, as the teacher was trained on, or alpha: 1 to leave them out",
            )
        return found

    def _dense(self, student: Signature, teacher: Signature) -> Signature:
        """The student's signature. Raises `DomainError` where dense outputs cannot be imitated so."""
        ours, theirs = student.outputs[0].shape, teacher.outputs[0].shape
        if ours[1:] != theirs[1:]:
            raise DomainError(
                f"the student gives {tuple(ours[1:])} for a sample, the teacher {tuple(theirs[1:])}",
                where="distill.logits",
                hint="choose a student whose dense output is of the teacher's shape: it gets no new head",
            )
        if self.alpha < 1 or self.features:
            raise DomainError(
                f"the outputs are dense, {tuple(theirs[1:])} for a sample, and are not compared with one label a sample",
                where="distill.logits",
                hint="set alpha: 1 and features: 0, which imitate the teacher alone",
            )
        return dataclasses.replace(student, classes=teacher.classes, answers=teacher.answers)


class _Objective:
    """The loss of a step: the teacher's answers, the labels, the embeddings."""

    def __init__(self, mapping: Logits, value: Network, student: nn.Module, ctx: Context) -> None:
        from mapsto.nn.distill.teacher_student import Teacher
        from mapsto.nn.network.head import headless
        from mapsto.nn.train.augmenter import Augmenter

        self._mapping, self._ctx, self._student = mapping, ctx, student
        teacher = ctx.network(mapping.teacher)
        augmenter = Augmenter(mapping.augment, ctx, mapping.samples(ctx) if mapping.tasks is None else None)
        self._teacher = Teacher(teacher, value, augmenter, ctx, where="distill.logits")
        if mapping.tasks is not None:
            headless(teacher, self._teacher.module)
        self._own = value.signature.preprocessing
        self._adaptation = mapping.adaptation(value, ctx)
        self._teachers_adaptation = teacher.adaptation or self._adaptation
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        """What the teacher answered to tasks that come again. Not part of the state: asked anew it answers the same."""
        self._dense = mapping.tasks is None and teacher.signature.is_dense
        self._kind: Kind = "classification"
        if self._dense:
            self._kind = "classification" if teacher.signature.classes is not None else "regression"
        elif mapping.tasks is None:
            self._kind = mapping.kind(mapping.samples(ctx), teacher.signature)
        self._weights = self._class_weights(ctx)

    def _class_weights(self, ctx: Context) -> Tensor | None:
        """Of the labels' loss. Raises `DomainError` where they are asked for and nothing is classified by the labels."""
        from mapsto.nn.train.class_weights import weights_of

        mapping = self._mapping
        by_labels = (
            mapping.data is not None and self._kind == "classification" and not self._dense and mapping.alpha < 1
        )
        if by_labels:
            return weights_of(mapping.samples(ctx), mapping.class_weights, ctx)
        if mapping.class_weights != "none":
            raise DomainError(
                f"class_weights: {mapping.class_weights}, but no labels of classes are learnt from",
                where="distill.logits",
                hint="leave class_weights out, or give data with a class each and alpha below 1",
            )
        return None

    def __call__(self, call: nn.Module, item: Batch | Task) -> Tensor:
        from mapsto.nn.distill.losses import distances
        from mapsto.nn.train.label_kinds import loss as hard

        mapping = self._mapping
        own, theirs = self._inputs(item)
        answers, labels, embedding = self._answers(call, self._student, own, item, self._adaptation)
        targets, known = self._asked_once(theirs, item)
        loss = mapping.alpha * self._imitated(answers, targets)
        if mapping.alpha < 1:
            labelled = hard(self._kind, answers, labels, weights=self._weights, sample_weights=own.weights)
            loss = loss + (1 - mapping.alpha) * labelled
        if mapping.features:
            loss = loss + mapping.features * distances(embedding, known)
        return loss

    def _inputs(self, item: Batch | Task) -> tuple[Drawn, Tensor]:
        """The student's input with its targets, and the teacher's; tasks that come again have the changes they had before."""
        import numpy as np

        from mapsto.nn.train.batches import Task

        if not isinstance(item, Task):
            return self._teacher.inputs(item.inputs, item.labels, item.step)
        raw = item.inputs.reshape(-1, *item.inputs.shape[2:])
        return self._teacher.inputs(raw, np.empty((len(raw), 0), np.float32), item.step)

    def _asked_once(self, inputs: Tensor, item: Batch | Task) -> tuple[Tensor, Tensor]:
        """The teacher's scores (N, classes) and embeddings (M, D); of tasks that come again, those that it gave before."""
        import torch

        from mapsto.nn.train.batches import Task

        place = item.step if isinstance(item, Task) and item.again else None
        if place is not None and place in self._known:
            return self._known[place]
        module, given = self._teacher.module, Drawn(x=inputs, targets=inputs.new_empty(0))
        with torch.no_grad():
            targets, _, embedding = self._answers(module, module, given, item, self._teachers_adaptation)
        targets = self._teacher.checked(targets)
        if place is not None:
            self._known[place] = targets, embedding if self._mapping.features else targets
        return targets, embedding

    def _imitated(self, answers: Tensor, targets: Tensor) -> Tensor:
        """D of the student's answers and the teacher's, both (N, ...)."""
        from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

        from mapsto.nn.distill.divergences import difference

        heat, name = self._mapping.temperature, self._mapping.difference
        if self._kind == "multilabel" and name == "kl":
            return heat**2 * binary_cross_entropy_with_logits(answers / heat, (targets / heat).sigmoid())
        if self._kind == "regression" and name != "cosine":
            return mse_loss(answers, targets)
        if self._dense:
            answers, targets = (each.movedim(1, -1).flatten(0, -2) for each in (answers, targets))
        return difference(name, answers, targets, temperature=heat)

    def _answers(
        self, call: nn.Module, inner: nn.Module, drawn: Drawn, item: Batch | Task, adaptation: Adaptation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (N, classes), their labels, and the embeddings (M, D)."""
        from mapsto.nn.network.head import embed_and_classify
        from mapsto.nn.network.layer_calls import watching
        from mapsto.nn.train.batches import Task, scores_and_labels

        if not isinstance(item, Task) and not self._mapping.features:
            scores = call(drawn.x)
            return scores, drawn.targets, scores
        if not isinstance(item, Task):
            embedding, scores = embed_and_classify(inner, drawn.x, through=call)
            return scores, drawn.targets, embedding
        seen: list[Any] = []
        with watching({"": call}, lambda _, __, output: seen.append(output)):
            scores, labels = scores_and_labels(
                call, drawn.x, item, adaptation, leave_one_out=self._mapping.leave_one_out
            )
        return scores, labels, seen[-1]

    def validation(self) -> Callable[[nn.Module], dict[str, float]] | None:
        """Metrics of a module on held-out data or tasks; None without any."""
        from mapsto.nn.meta.evaluation import episode_metrics
        from mapsto.nn.train.metrics import class_metrics

        mapping, ctx = self._mapping, self._ctx
        if mapping.tasks is not None and mapping.validation_tasks is not None:
            episodes = ctx.tasks(mapping.validation_tasks)
            chosen = [episodes[number] for number in range(100)]
            return lambda module: episode_metrics(module, self._own, self._adaptation, chosen, device=ctx.device)
        if mapping.data is not None and mapping.validation is not None:
            samples = ctx.dataset(mapping.validation)
            if self._dense:
                return lambda module: {"val_loss": self._difference_on(module, samples)}
            return lambda module: class_metrics(module, samples, self._own, device=ctx.device)
        return None

    def _difference_on(self, module: nn.Module, samples: Samples) -> float:
        """The mean difference from the teacher on held-out samples."""
        from mapsto.nn.network.inference import forward

        knows, before = self._teacher.module, self._teacher.network.signature.preprocessing
        answers = forward(module, samples.inputs, self._own, device=self._ctx.device)
        return float(self._imitated(answers, forward(knows, samples.inputs, before, device=self._ctx.device)))
