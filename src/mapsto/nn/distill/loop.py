"""The one loop of distillation: a student learns the labels, and to imitate a frozen teacher that sees the same images.

A mapping of the family `distill` says what is imitated: a loss of the answers and, where it asks for them, of layers of both
networks. This file does the rest: fields, data, the teacher in evaluation mode, the same random changes for both, the
projectors that only training needs (part of the state, not of the result), validation, and the network that comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples, Signature
from mapsto.mapping import DataSource, NetworkSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.kinds import Edit
    from mapsto.nn.distill.teacher_student import StudentWithProjectors, Teacher
    from mapsto.nn.network.features import Pair
    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.loop import Load, Training

__all__ = [
    "Distillation",
    "DistillationLoop",
    "LossInputs",
    "NumberedBatch",
    "NumberedBatches",
    "ProjectorInputs",
    "classes_only",
    "naming",
    "shared_classes",
]


class NumberedBatch(NamedTuple):
    """A batch, and where it stands."""

    inputs: NDArray[Any]
    labels: NDArray[Any]
    places: NDArray[Any]
    """The numbers of its samples in the data."""
    step: int


class LossInputs(NamedTuple):
    """What the loss against the teacher is computed from; of M layers. Only the student's and the projectors' outputs carry gradients."""

    scores: Tensor
    """The student's answers, shape (N, classes)."""
    targets: Tensor
    """The teacher's."""
    labels: Tensor
    """Classes (N,), int64; of mixed samples shares of classes (N, classes)."""
    ours: list[Tensor]
    """The student's M layers, after the projectors."""
    theirs: list[Tensor]
    """The teacher's."""
    places: Tensor
    """The numbers of the samples in the data, (N,), int64."""
    projectors: nn.Module
    """What only training needs."""


class ProjectorInputs(NamedTuple):
    """What projectors are made for."""

    ours: list[Tensor]
    """The student's layers for an example batch; only their shapes matter."""
    theirs: list[Tensor]
    """The teacher's."""
    pairs: list[Pair]
    """Their paths."""
    student: Network
    teacher: Network
    samples: Samples


class DistillationLoop(Optimisation, Process[Network, Network]):
    """The fields and the loop of every mapping that trains a student on labelled data to imitate a teacher, several, or itself.

    Raises `DomainError` where the teacher's classes are not the data's, its answers hold NaN, or a layer is not there;
    `DataError` for data with NaN, without labels or of one class.
    """

    data: DataSource = Field(description="Labelled samples.")
    validation: DataSource | None = Field(
        default=None, description="Held-out data, gone through at the end of each epoch."
    )
    epochs: int = Field(default=10, ge=1, description="Passes over the data.")
    batch_size: int = Field(default=64, ge=1, description="Samples of a step; 64 as in Tian et al., 2020.")
    labels: float = Field(default=1.0, ge=0, description="Weight of the labels' cross-entropy.")
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="`balanced`: in the labels' cross-entropy each class weighs as much as any other, however few its samples.",
    )
    ramp: int = Field(
        default=0,
        ge=0,
        description="Epochs over which the weight of what is imitated rises linearly to its full value; 0: full at once.",
    )
    augment: Augmentations = Field(
        default=(), description="Random changes of each sample, in order, the same for teacher and student."
    )
    learning_rate: float = Field(default=0.05, gt=0, description="The highest learning rate of the schedule.")

    version: ClassVar[int] = 2
    needs_whole_labels: ClassVar[str] = ""
    """Why its loss cannot do with mixed samples, which have no label of their own; empty where it can."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.needs_whole_labels:
            refuse_mixing(self.augment, self.needs_whole_labels, where=self.name)

    # -- what a mapping defines

    def make_teacher(self, value: Network, samples: Samples, ctx: Context) -> Teacher:
        """The teacher: what gives the answers, and the layers, that are imitated."""
        raise NotImplementedError(f"{type(self).__name__} does not define make_teacher")

    def imitation_loss(self, given: LossInputs) -> Tensor:
        """The loss of a batch besides the labels', a scalar."""
        raise NotImplementedError(f"{type(self).__name__} does not define imitation_loss")

    def augmenter(self, samples: Samples, ctx: Context) -> Augmenter:
        """What changes the samples for both networks."""
        from mapsto.nn.train.augmenter import Augmenter

        return Augmenter(self.augment, ctx, samples)

    def teacher_networks(self, ctx: Context) -> Sequence[Network]:
        """The networks whose answers are imitated, which are given the same samples; none by default."""
        return ()

    def pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        """The layers that the loss compares, by path; none by default."""
        return []

    def projectors(self, inputs: ProjectorInputs) -> nn.Module | None:
        """A module of (student's layers, teacher's layers) → the same two lists as the loss compares them; None: as they are."""
        return None

    # -- the process

    def items(self, value: Network, ctx: Context) -> NumberedBatches:
        return NumberedBatches(self._samples(ctx), self.batch_size, ctx)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.network.features import EMBEDDING
        from mapsto.nn.train.class_weights import weights_of
        from mapsto.nn.train.loop import Training, TrainingPlan

        student, teacher, _, _ = self._student_and_teacher(value, ctx)
        weights = weights_of(self._samples(ctx), self.class_weights, ctx)
        epoch = self.items(value, ctx).per_epoch
        plan = TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch)

        def loss(call: nn.Module, item: NumberedBatch) -> Tensor:
            return self._loss(call, item, student, teacher, epoch, weights)

        return Training(
            student,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load, ctx),
            validate=self._validation(value, ctx),
            examples=self._examples(value, ctx),
            fused=all(path == EMBEDDING for path in student.paths),
        )

    def _result(self, value: Network, load: Load, ctx: Context) -> Network:
        student, _, edits, signature = self._student_and_teacher(value, ctx)
        load(student)
        return value.with_module(student.student, *edits, signature=signature, adaptation=None)

    def _student_and_teacher(
        self, value: Network, ctx: Context
    ) -> tuple[StudentWithProjectors, Teacher, tuple[Edit, ...], Signature]:
        """The student with its projectors, the teacher, how the student comes from `value`, and its signature."""
        from mapsto.nn.distill.teacher_student import StudentWithProjectors, layers_of
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.network.head import headed

        samples = self._samples(ctx)
        teacher = self.make_teacher(value, samples, ctx)
        module = value.module()
        edit, signature = headed(value, module, samples.classes)
        examples = example_batch(value), example_batch(teacher.network).to(ctx.device)
        pairs = self.pairs(module, teacher.module, examples)
        ours = layers_of(module, examples[0], [own for own, _ in pairs])
        theirs = [layer.cpu() for layer in layers_of(teacher.module, examples[1], [their for _, their in pairs])]
        with naming(f"{self.name}: layers"):
            inputs = ProjectorInputs(ours, theirs, pairs, value, teacher.network, samples)
            student = StudentWithProjectors(module, pairs, self.projectors(inputs))
        return student, teacher, (edit,) if edit else (), signature

    def _samples(self, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_classes, require_finite
        from mapsto.nn.train.label_kinds import ANSWERS, kind_of

        samples = ctx.dataset(self.data, also=self.teacher_networks(ctx))
        if len(samples) and kind_of(samples.labels) != "classification":
            raise classes_only(ANSWERS[kind_of(samples.labels)], "the labels are", where=f"{self.name}: data")
        require_classes(samples, where=f"{self.name}: data")
        require_finite(samples.inputs, where=f"{self.name}: data")
        require_fitting(self.augment, samples, where=f"{self.name}: augment")
        return samples

    def _loss(
        self,
        call: nn.Module,
        item: NumberedBatch,
        student: StudentWithProjectors,
        teacher: Teacher,
        epoch: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        import torch

        from mapsto.nn.train.losses import classification

        drawn, theirs = teacher.inputs(item.inputs, item.labels, item.step)
        targets, known = teacher.answers(theirs, [path for _, path in student.pairs])
        scores, ours, known = call(drawn.x, known)
        places = torch.as_tensor(item.places, device=scores.device)
        with naming(f"{self.name}: layers"):
            imitated = self.imitation_loss(
                LossInputs(scores, targets, drawn.targets, ours, known, places, student.projectors)
            )
        share = min(1.0, (item.step + 1) / (self.ramp * epoch)) if self.ramp else 1.0
        labelled = classification(scores, drawn.targets, weights=weights, sample_weights=drawn.weights)
        return self.labels * labelled + share * imitated

    def _examples(self, value: Network, ctx: Context) -> Callable[[nn.Module], dict[str, float]]:
        """Figures of a student on the samples that it is trained on."""
        from mapsto.nn.train.gap import on_examples

        figures = on_examples(self._samples(ctx), value.signature.preprocessing, device=ctx.device)
        return lambda student: figures(student.get_submodule("student"))

    def _validation(self, value: Network, ctx: Context) -> Callable[[nn.Module], dict[str, float]] | None:
        from mapsto.nn.train.metrics import class_metrics

        if self.validation is None:
            return None
        samples, preprocessing = ctx.dataset(self.validation), value.signature.preprocessing
        return lambda student: class_metrics(
            student.get_submodule("student"), samples, preprocessing, device=ctx.device
        )


class Distillation(DistillationLoop):
    """The fields of every mapping that imitates one teacher."""

    teacher: NetworkSource = Field(description="The network to imitate: a classifier of the data's classes.")

    def teacher_networks(self, ctx: Context) -> Sequence[Network]:
        return (ctx.network(self.teacher),)

    def make_teacher(self, value: Network, samples: Samples, ctx: Context) -> Teacher:
        from mapsto.nn.distill.teacher_student import Teacher

        network = ctx.network(self.teacher)
        if network.signature.answers != "classes":
            raise classes_only(network.signature.answers, "the teacher answers", where=f"{self.name}: teacher")
        shared_classes(samples, network.signature, where=self.name)
        return Teacher(network, value, self.augmenter(samples, ctx), ctx, where=self.name)


class NumberedBatches:
    """Batches in a new order each epoch, with the numbers of their samples."""

    workers = 1

    def __init__(self, samples: Samples, batch_size: int, ctx: Context) -> None:
        import dataclasses

        import numpy as np

        from mapsto.nn.train.batches import Batches

        numbered = dataclasses.replace(samples, labels=np.arange(len(samples)))
        self._labels = samples.labels
        self._batches = Batches(numbered, batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self._batches.per_epoch

    def __getitem__(self, step: int) -> NumberedBatch:
        inputs, places, _ = self._batches[step]
        return NumberedBatch(inputs, self._labels[places], places, step)


@contextmanager
def naming(where: str) -> Generator[None]:
    """Says where an error of shared mathematics belongs, within the block."""
    try:
        yield
    except DomainError as error:
        error.where = error.where or where
        raise


def classes_only(answers: str, who: str, *, where: str) -> DomainError:
    """The error of a mapping that compares scores of classes where there are others, which `answers` names."""
    return DomainError(
        f"{who} {answers}, but it compares scores of classes, of which one is right",
        where=where,
        hint="use distill.logits, which imitates labels and values too",
    )


def shared_classes(samples: Samples, teacher: Signature, *, where: str) -> tuple[str, ...]:
    """The data's classes, which must be the teacher's. Raises `DomainError`."""
    if teacher.is_dense:
        raise DomainError(
            f"the teacher's output is dense, {teacher.outputs[0].shape[1:]} for a sample",
            where=f"{where}: teacher",
            hint="use distill.logits with alpha: 1 and a student whose output is of that shape",
        )
    classes, known, outputs = samples.classes, teacher.classes, teacher.outputs[0].shape[-1]
    if (known is not None and known != classes) or outputs != len(classes):
        given = (
            f"the classes {', '.join(known[:5])}{', …' if len(known) > 5 else ''}" if known else f"{outputs} outputs"
        )
        raise DomainError(
            f"the teacher has {given}, but the data has {len(classes)}: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}",
            where=f"{where}: teacher",
            hint="train the teacher on these classes, or distil over tasks",
        )
    return classes
