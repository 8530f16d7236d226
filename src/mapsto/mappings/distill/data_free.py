"""Teach a student without any data, on images that the teacher's batch norms would take for those it was trained on.

``x = argmin CE(t(x), y) + r Σ_l (‖μ_l(x) − μ̂_l‖ + ‖σ²_l(x) − σ̂²_l‖) + v TV(x)``, from noise, with the means μ̂ and variances σ̂² that batch
norm l has kept; then ``T² KL(t(x) ‖ s(x))`` over these images (Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer
via DeepInversion", 2020). Without the paper's competition between student and teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Signature
from mapsto.mapping import DataSource, NetworkSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.distill.deep_inversion import DeepInversion
    from mapsto.nn.edits.head import Head
    from mapsto.nn.train.loop import Load

__all__ = ["DataFree"]


class DataFree(Optimisation, Process[Network, Network]):
    """The student trained to answer as `teacher` does on images made from the teacher alone.

    Raises `DomainError` for a teacher that takes no images, has no batch norms, or other preprocessing than the student.

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=60)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=1) for width in (12, 8))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=64)(teacher)
    >>> trained = DataFree(teacher=teacher, batches=2, iterations=40, epochs=15, statistics=10)(student)
    >>> before, after = (evaluate.accuracy(data=digits)(each).metrics["accuracy"].value for each in (student, trained))
    >>> before + 10 < after
    True
    """

    teacher: NetworkSource
    """The classifier to imitate, with batch norms that kept their statistics."""
    batches: int = Field(default=8, ge=1)
    """Batches of images that are made."""
    batch_size: int = Field(default=64, ge=2)
    """Images of a batch; its statistics are compared with those kept, so more are better (256 in the paper on CIFAR-10)."""
    iterations: int = Field(default=500, ge=1)
    """Steps of making a batch; 2000 in the paper on CIFAR-10."""
    image_rate: float = Field(default=0.1, gt=0)
    """Adam's rate for the images, in units of the normalised image."""
    statistics: float = Field(default=3.0, ge=0)
    """r, the weight of the batch norms' statistics; 1 to 10 did on digits, and half as well at 0."""
    variation: float = Field(default=0.1, ge=0)
    """v, the weight of the differences of neighbouring pixels, which keep the images smooth; 0.01 to 0.1 did on digits."""
    epochs: int = Field(default=40, ge=1)
    """Passes of the student over the images."""
    temperature: float = Field(default=4.0, gt=0)
    """T of the answers; 4 is usual for CIFAR (Tian et al., 2020)."""
    validation: DataSource | None = None
    """Held-out data, gone through at the end of each epoch; nothing is learnt from it."""
    learning_rate: float = Field(default=0.05, gt=0)
    """The highest learning rate of the schedule, of the student."""

    contract: ClassVar[dict[str, Any]] = {"batches": 2, "iterations": 2}

    def items(self, value: Network, ctx: Context) -> range:
        return range(2**62)

    def open(self, value: Network, state: State | None, ctx: Context) -> DeepInversion:
        import torch

        from mapsto.nn.distill.deep_inversion import DeepInversion, SynthesisSettings, bounds, statistics_gap
        from mapsto.nn.distill.loop import classes_only, naming
        from mapsto.nn.network.inference import compact
        from mapsto.nn.train.loop import Training, TrainingPlan
        from mapsto.nn.train.metrics import class_metrics

        teacher, samples = ctx.network(self.teacher), self.batches * self.batch_size
        if teacher.signature.answers != "classes":
            raise classes_only(teacher.signature.answers, "the teacher answers", where=f"{self.name}: teacher")
        preprocessing = teacher.signature.preprocessing
        knows = compact(teacher.module().to(ctx.device)).requires_grad_(False)
        with naming(f"{self.name}: teacher"), statistics_gap(knows):
            pass
        held_out = ctx.dataset(self.validation) if self.validation is not None else None
        student = Training(
            self._student(value, ctx)[0],
            None if state is None else state["student"],
            plan=TrainingPlan(
                optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * self.batches, epoch=self.batches
            ),
            fabric=ctx.fabric,
            loss=lambda call, images: self._loss(call, knows, images),
            result=lambda load: self._result(value, load, ctx),
            validate=(lambda module: class_metrics(module, held_out, preprocessing, device=ctx.device))
            if held_out is not None
            else None,
            fused=True,
        )
        settings = SynthesisSettings(
            batches=self.batches,
            batch_size=self.batch_size,
            iterations=self.iterations,
            rate=self.image_rate,
            statistics=self.statistics,
            variation=self.variation,
            classes=teacher.signature.outputs[0].shape[-1],  # pyright: ignore[reportArgumentType]
        )
        shape = tuple(teacher.signature.input_shape())[1:]
        limits = bounds(preprocessing, ctx.device)
        return DeepInversion(
            settings,
            knows,
            shape,
            limits,
            state,
            student,
            lambda epoch: torch.as_tensor(ctx.random("order", epoch).permutation(samples), device=ctx.device),
        )

    def _result(self, value: Network, load: Load, ctx: Context) -> Network:
        module, edit, signature = self._student(value, ctx)
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)

    def _student(self, value: Network, ctx: Context) -> tuple[nn.Module, Head | None, Signature]:
        """The student with a head for the teacher's classes. Raises `DomainError` where the two do not fit."""
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.network.head import headed

        teacher = ctx.network(self.teacher).signature
        refuse_dense(teacher, where=f"{self.name}: teacher", who="the teacher")
        if teacher.preprocessing.kind != "image" or teacher.preprocessing != value.signature.preprocessing:
            raise DomainError(
                "the student does not take the images that the teacher takes",
                where=f"{self.name}: teacher",
                hint="give both the same preprocessing: channels, size, mean and std of images",
            )
        outputs = int(teacher.outputs[0].shape[-1])
        module = value.module()
        return module, *headed(value, module, teacher.classes or tuple(map(str, range(outputs))))

    def _loss(self, call: nn.Module, teacher: nn.Module, images: Tensor) -> Tensor:
        import torch

        from mapsto.nn.distill.divergences import kl

        with torch.no_grad():
            targets: Tensor = teacher(images)
        return kl(call(images), targets, temperature=self.temperature)
