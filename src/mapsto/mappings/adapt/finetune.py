"""Train on a few labelled examples from a small learning rate until it converges: the rate falls tenfold whenever the loss stalls.

``min_θ mean_i −log softmax(f_θ(x_i))[y_i] + λ‖θ‖²`` by Adam from η = 10⁻³, with dropout before the head; the epoch with the lowest loss
(held-out, where there is held-out data) is the result. Batch norm keeps the statistics it was trained with: those of a few
examples are too noisy (Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Finetune"]


class Finetune(Optimisation, Process[Network, Network]):
    """A classifier for the classes of `data`, all of it or only its head trained."""

    version: ClassVar[int] = 2

    data: DataSource
    """The labelled examples, at least one of each class."""
    validation: DataSource | None = None
    """Held-out examples by which the rate is lowered and the best epoch chosen; without any the training loss decides."""
    epochs: int = Field(default=100, ge=1)
    """At most so many passes over the data."""
    batch_size: int = Field(default=32, ge=1)
    """Samples of a step."""
    freeze: Literal["none", "embedding"] = "none"
    """`embedding`: only the head is trained."""
    begin: Literal["centroid", "random"] = "centroid"
    """A new head's first weights: each class's mean embedding, or random."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the embedding dropped in training."""
    stop_after: int = Field(default=15, ge=1)
    """Early stopping: epochs without a better loss after which it ends."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its examples."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all classes."""
    augment: Augmentations = ()
    """Random changes of each sample, in order."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adam"
    """`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Where the learning rate begins."""
    schedule: Literal["cosine", "onecycle", "constant", "plateau"] = "plateau"
    """`plateau` divides the rate by 10 after `patience` epochs without a better loss; it has converged at a thousandth."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """λ, the L2 penalty of the weights."""

    def items(self, value: Network, ctx: Context) -> Batches:
        from mapsto.nn.train.batches import Batches

        return Batches(self._samples(ctx), self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.network.head import fits, head
        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.class_weights import weights_of
        from mapsto.nn.train.loop import Training, TrainingPlan

        samples = self._samples(ctx)
        weights = weights_of(samples, self.class_weights, ctx)
        augmenter = Augmenter(self.augment, ctx, samples)
        module, _ = self._headed(value, samples)
        if state is None and self.begin == "centroid" and not fits(value, value.module(), samples.classes):
            self._set_centroids(value, module, samples, ctx)
        epoch = self.items(value, ctx).per_epoch
        last = head(module)
        if self.freeze == "embedding" and last is not None:
            module.requires_grad_(False)
            last.requires_grad_(True)
        plan = TrainingPlan(
            optimisation=self,
            rule=self.update_rule(ctx),
            steps=self.epochs * epoch,
            epoch=epoch,
            stop_after=self.stop_after,
            lowest_rate=0.9e-3,
        )
        return Training(
            module,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=lambda call, item: self._loss(value, call, item, weights, augmenter),
            result=lambda load: self._result(value, load, samples),
            validate=self._validation(value, ctx),
            mode=self._train_mode,
        )

    def _result(self, value: Network, load: Load, samples: Samples) -> Network:
        from mapsto.nn.network.build import taking, with_output

        module, edit = self._headed(value, samples)
        signature = with_output(taking(value.signature, samples), len(samples.classes), samples.classes)
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)

    def _samples(self, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_classes, require_finite

        samples = require_classes(ctx.dataset(self.data), where="adapt.finetune")
        require_finite(samples.inputs, where="adapt.finetune: data")
        require_fitting(self.augment, samples, where="adapt.finetune: augment")
        return samples

    def _headed(self, value: Network, samples: Samples) -> tuple[nn.Module, Head | None]:
        from mapsto.nn.network.head import headed

        module = value.module()
        edit, _ = headed(value, module, samples.classes, dropout=self.dropout)
        return module, edit

    def _set_centroids(self, value: Network, module: nn.Module, samples: Samples, ctx: Context) -> None:
        """Class means as the head, at a scale where scores of the examples differ by a few units."""
        import torch

        from mapsto.nn.meta.adaptation.centroid import head
        from mapsto.nn.meta.adaptation_methods import CENTROID
        from mapsto.nn.network.head import set_head
        from mapsto.nn.network.inference import embeddings

        features = embeddings(value.module(), samples.inputs, value.signature.preprocessing, device=ctx.device)
        labels = torch.as_tensor(samples.labels)
        weight, bias = head(features, labels, len(samples.classes), CENTROID)
        spread = float((features @ weight.T + bias).std(1).mean().clamp_min(1e-6))
        set_head(module, 2 * weight / spread, 2 * bias / spread)

    def _loss(
        self, value: Network, call: nn.Module, item: Batch, weights: Tensor | None, augmenter: Augmenter
    ) -> Tensor:
        from mapsto.nn.train.losses import classification

        drawn = augmenter(item.inputs, item.labels, item.step, value.signature.preprocessing)
        return classification(
            call(drawn.x),
            drawn.targets,
            weights=weights,
            smoothing=self.smoothing,
            sample_weights=drawn.weights,
        )

    def _validation(self, value: Network, ctx: Context) -> Callable[[nn.Module], dict[str, float]] | None:
        from mapsto.nn.train.metrics import class_metrics

        if self.validation is None:
            return None
        samples = ctx.dataset(self.validation)
        return lambda module: class_metrics(module, samples, value.signature.preprocessing, device=ctx.device)

    def _train_mode(self, module: nn.Module) -> Any:
        """Only what is trained, and no batch norm, is put into training mode."""
        from torch.nn.modules.batchnorm import _BatchNorm

        from mapsto.nn.network.head import head

        module.train(self.freeze == "none")
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        last = head(module)
        if last is not None:
            last.train()
