"""Train on labelled data by gradient steps on mini-batches: classes, several labels at once, or numbers.

``θ ← θ − η(t) · ∇ mean_i ℓ(f_θ(a(x_i)), y_i)`` with a random change a(x) of each image and the rate η(t) of the schedule (Goyal et al.,
"Accurate, Large Minibatch SGD", 2017; label smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.label_kinds import Kind
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Supervised"]


class Supervised(Optimisation, Process[Network, Network]):
    """A network trained on `data`; its head is replaced where the data's classes are not the network's."""

    version: ClassVar[int] = 2

    data: DataSource
    """What to learn from: (N, ...) with labels (N,) or targets (N, K)."""
    validation: DataSource | None = None
    """Held-out data, gone through at the end of each epoch."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the data."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of a step."""
    loss: Literal["auto", "classification", "multilabel", "regression"] = "auto"
    """`auto`: by the labels, whole numbers are classes, floats of only 0 and 1 several labels at once, others numbers."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its samples. For classes only."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all classes; 0.1 is usual."""
    augment: Augmentations = ()
    """Random changes of each sample, in order."""

    def items(self, value: Network, ctx: Context) -> Batches:
        from mapsto.nn.train.batches import Batches

        return Batches(self._samples(ctx), self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.train.class_weights import note_unequal
        from mapsto.nn.train.loop import Training, TrainingPlan

        samples = self._samples(ctx)
        if self._kind(samples) == "classification" and self.class_weights == "none":
            note_unequal(samples, ctx)
        module, _ = self._headed(value, samples)
        epoch = self.items(value, ctx).per_epoch
        plan = TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch)
        objective = _Objective(self, value, samples, ctx)
        return Training(
            module,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=objective,
            result=lambda load: self._result(value, load, samples),
            validate=objective.validation(self.validation),
            fused=True,
            examples=objective.examples(samples),
        )

    def _result(self, value: Network, load: Load, samples: Samples) -> Network:
        from mapsto.nn.network.build import taking, with_output
        from mapsto.nn.train.label_kinds import ANSWERS

        module, edit = self._headed(value, samples)
        answers = ANSWERS[self._kind(samples)]
        signature = with_output(
            taking(value.signature, samples), len(samples.classes), samples.classes, answers=answers
        )
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)

    def _samples(self, ctx: Context) -> Samples:
        """The data, after a look at it: no NaN, more than one class, labels for the loss. Raises `DataError` or `DomainError`."""
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_classes, require_finite, require_some

        samples = require_some(ctx.dataset(self.data), where="train.supervised")
        require_finite(samples.inputs, where="train.supervised: data")
        require_finite(samples.labels, where="train.supervised: labels")
        if samples.labels.ndim == 1 and samples.labels.dtype.kind in "iu":
            require_classes(samples, where="train.supervised")
        require_fitting(self.augment, samples, where="train.supervised: augment", targets=self._kind(samples))
        if self._kind(samples) != "classification" and self.class_weights != "none":
            raise DomainError(
                f"class_weights: {self.class_weights}, but the labels are not one class each",
                where="train.supervised",
                hint="leave class_weights out",
            )
        return samples

    def _kind(self, samples: Samples) -> Kind:
        from mapsto.nn.train.label_kinds import chosen_kind

        return chosen_kind(self.loss, samples.labels, where="train.supervised")

    def _headed(self, value: Network, samples: Samples) -> tuple[nn.Module, Head | None]:
        from mapsto.nn.network.head import headed

        module = value.module()
        edit, _ = headed(value, module, samples.classes)
        return module, edit


class _Objective:
    """The loss of a batch, and the validation that goes with it."""

    def __init__(self, mapping: Supervised, network: Network, samples: Samples, ctx: Context) -> None:
        import torch

        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.losses import class_weights

        self._mapping, self._ctx = mapping, ctx
        self._preprocessing = network.signature.preprocessing
        self._kind: Kind = mapping._kind(samples)
        self._augmenter = Augmenter(mapping.augment, ctx, samples)
        self._weights: Tensor | None = None
        if mapping.class_weights == "balanced":
            self._weights = class_weights(torch.as_tensor(samples.labels), len(samples.classes)).to(ctx.device)

    def __call__(self, call: nn.Module, item: Batch) -> Tensor:
        from mapsto.nn.train.label_kinds import loss

        drawn = self._augmenter(item.inputs, item.labels, item.step, self._preprocessing)
        return loss(
            self._kind,
            call(drawn.x),
            drawn.targets,
            weights=self._weights,
            smoothing=self._mapping.smoothing,
            sample_weights=drawn.weights,
        )

    def examples(self, samples: Samples) -> Callable[[nn.Module], dict[str, float]]:
        """Figures of a module on the samples that it is trained on."""
        from mapsto.nn.train.gap import on_examples

        return on_examples(samples, self._preprocessing, kind=self._kind, device=self._ctx.device)

    def validation(self, source: Any) -> Callable[[nn.Module], dict[str, float]] | None:
        """Metrics of a module on held-out data; None without any."""
        if source is None:
            return None
        samples = self._ctx.dataset(source)

        def validate(module: nn.Module) -> dict[str, float]:
            import torch

            from mapsto.nn.network.inference import forward
            from mapsto.nn.train.metrics import target_metrics

            outputs = forward(module, samples.inputs, self._preprocessing, device=self._ctx.device)
            return target_metrics(self._kind, outputs, torch.as_tensor(samples.labels))

        return validate
