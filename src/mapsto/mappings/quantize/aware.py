"""Train through the quantizers: weights learn to be right once they are rounded, and so can the size of each step.

``min_θ,s E ℓ(f(q_s(θ), x), y)`` with gradients passed straight through the rounding (Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018). With `learn_scales`, ``∂x̂/∂s = round(x/s) − x/s`` inside the
range and its end outside, divided by √(N · highest code) (Esser et al., "Learned Step Size Quantization", 2020).

Batch norm: where `quantize.static` has folded it, its statistics are part of the weights and stay out of training, so that training
computes just what runs later. A batch norm that could not be folded goes on as in any training; see `keep_statistics`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Aware"]


class Aware(Optimisation, Process[Network, Network]):
    """The quantized network (from `quantize.static` or `quantize.mixed`), trained as it will run.

    `train.supervised` and `distill.logits` train a quantized network too, from a teacher or over tasks, but with the steps it has.
    Raises `DomainError` for a network without quantizers or with other outputs than the data has classes, and `DataError` for data
    without samples or with values that are not finite.

    >>> from mapsto.data.sets.digits import Digits
    >>> from mapsto.mappings.evaluate.accuracy import Accuracy
    >>> from mapsto.mappings.networks.conv4 import Conv4
    >>> from mapsto.mappings.quantize.static import Static
    >>> data = Digits(size=16)
    >>> small = Static(data=data, samples=64, bits=3)(Conv4(channels=1, size=16, width=8, classes=10)())
    >>> better = Aware(data=data, epochs=1, batch_size=32, learning_rate=0.05)(small)
    >>> accuracy = [Accuracy(data=data, pictures=0)(network).metrics["accuracy"].value for network in (small, better)]
    >>> accuracy[1] > accuracy[0] + 10
    True
    """

    version: ClassVar[int] = 2

    data: DataSource
    """Labelled samples of the network's classes."""
    validation: DataSource | None = None
    """Held-out data, gone through at the end of each epoch."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the data; a tenth of the float training's is usual."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of a step."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its samples. For classes only."""
    learn_scales: bool = False
    """Whether steps are trained too; worth it below 8 bits. Zero points stay, and a bias's step follows its layer's."""
    augment: Augmentations = ()
    """Random changes of each sample, in order."""
    learning_rate: float = Field(default=0.01, gt=0)
    """The highest learning rate of the schedule; a tenth of the float training's is usual."""

    @staticmethod
    def contract_input() -> Network:
        """A quantized network, what this maps from."""
        from mapsto.nn.quantize.post_training import quantized_example

        return quantized_example()

    def items(self, value: Network, ctx: Context) -> Batches:
        from mapsto.nn.train.batches import Batches

        samples = self._samples(value, ctx)
        return Batches(samples, self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.class_weights import weights_of
        from mapsto.nn.train.label_kinds import kind_of, loss
        from mapsto.nn.train.loop import Training, TrainingPlan
        from mapsto.nn.train.metrics import class_metrics

        epoch = self.items(value, ctx).per_epoch
        samples = self._samples(value, ctx)
        before, kind = value.signature.preprocessing, kind_of(samples.labels)
        weights = weights_of(samples, self.class_weights, ctx) if kind == "classification" else None
        augmenter = Augmenter(self.augment, ctx, samples)

        def objective(call: nn.Module, item: Batch) -> Tensor:
            drawn = augmenter(item.inputs, item.labels, item.step, before)
            return loss(kind, call(drawn.x), drawn.targets, weights=weights, sample_weights=drawn.weights)

        def validate(module: nn.Module) -> dict[str, float]:
            return class_metrics(module, ctx.dataset(self.validation), before, device=ctx.device)

        return Training(
            self._module(value),
            state,
            plan=TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch),
            fabric=ctx.fabric,
            loss=objective,
            result=lambda load: self._result(value, load, ctx),
            validate=validate if self.validation is not None else None,
        )

    def _result(self, value: Network, load: Load, ctx: Context) -> Network:
        from mapsto.kinds import detached
        from mapsto.nn.edits.quantizers import is_step, learned_steps
        from mapsto.nn.quantize.float_layers import tell_again
        from mapsto.nn.quantize.post_training import quantized_edit, with_scales

        tell_again(value, ctx, where=self.name)
        module = load(self._module(value))
        edit = with_scales(value, quantized_edit(value, where=self.name), learned_steps(module))
        tensors = {name: tensor for name, tensor in module.state_dict().items() if not is_step(name)}
        return dataclasses.replace(value, edits=(*value.edits[:-1], edit), tensors=detached(tensors))

    def _module(self, value: Network) -> nn.Module:
        from mapsto.nn.quantize.post_training import quantized_edit, with_learned_steps

        quantized_edit(value, where=self.name)
        return with_learned_steps(value, where=self.name) if self.learn_scales else value.module()

    def _samples(self, value: Network, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_alike, require_finite, require_some
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.train.label_kinds import kind_of

        refuse_dense(value.signature, where=self.name)
        samples = require_some(ctx.dataset(self.data), where=self.name)
        require_finite(samples.inputs, where=f"{self.name}: data")
        require_finite(samples.labels, where=f"{self.name}: labels")
        if self.class_weights != "none" and kind_of(samples.labels) != "classification":
            raise DomainError(
                f"class_weights: {self.class_weights}, but the labels are not one class each",
                where=self.name,
                hint="leave class_weights out",
            )
        require_fitting(self.augment, samples, where=f"{self.name}: augment", targets=kind_of(samples.labels))
        require_alike(value.signature.classes, samples.classes, where=self.name)
        outputs = value.signature.outputs[0].shape[-1]
        if outputs != len(samples.classes):
            raise DomainError(
                f"the network has {outputs} outputs, the data {len(samples.classes)} classes",
                where=self.name,
                hint="train on data of its classes; a learner without classes is trained by distill.logits on tasks",
            )
        return samples
