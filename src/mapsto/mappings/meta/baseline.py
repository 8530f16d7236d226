"""Train a cosine classifier on all classes at once, without any episode; new classes are then told by angles to a few examples.

``min_{f,w} −log softmax_k(s · cos(w_k, f(x)))[y]``, then a task's classes get new directions w: their mean embeddings, or these fitted
by gradient descent (Chen et al., "A Closer Look at Few-shot Classification", 2019, Baseline++).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.kinds import Adaptation, Edit, Network, Samples, Signature
from mapsto.mapping import DataSource, TasksSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mapsto.nn.meta.adaptation.cosine import Classifier
    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Baseline"]


class Baseline(Optimisation, Process[Network, Network]):
    """A learner: the network without its head, trained to tell all classes of `data` by angles.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = meta.baseline(data=digits, epochs=1, batch_size=32, learning_rate=0.01)(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    version: ClassVar[int] = 2

    data: DataSource
    """What to learn from: many classes, two or more."""
    validation: TasksSource | None = None
    """Held-out tasks, tried at the end of each epoch."""
    validation_episodes: int = Field(default=100, ge=1)
    """How many of them."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the data."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of a step."""
    scale: float = Field(default=10.0, gt=0)
    """s, which multiplies the cosine; in the authors' code 2 for up to 200 classes, else 10."""
    adapt: Literal["means", "fitted"] = "means"
    """How a task's classes get their directions: by their mean embeddings, or `fitted` from there on."""
    adapt_steps: int = Field(default=100, ge=1)
    """Steps of gradient descent with `fitted`; 100 in the paper."""
    adapt_rate: float = Field(default=0.01, gt=0)
    """Their rate; 0.01 in the paper."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its samples."""
    augment: Augmentations = ()
    """Random changes of each sample, in order."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adam"
    """`adam` in the paper."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest learning rate of the schedule."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty of the weights."""

    def items(self, value: Network, ctx: Context) -> Batches:
        from mapsto.nn.train.batches import Batches

        return Batches(self._samples(ctx), self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.class_weights import weights_of
        from mapsto.nn.train.loop import Training, TrainingPlan

        samples = self._samples(ctx)
        weights = weights_of(samples, self.class_weights, ctx)
        augmenter = Augmenter(self.augment, ctx, samples)
        epoch = self.items(value, ctx).per_epoch
        return Training(
            self._classifier(value, ctx)[0],
            state,
            plan=TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch),
            fabric=ctx.fabric,
            loss=lambda call, item: self._loss(value, call, item, weights, augmenter),
            result=lambda load: self._result(value, load, ctx),
            validate=self._validation(value, ctx),
            fused=True,
        )

    def _result(self, value: Network, load: Load, ctx: Context) -> Network:
        classifier, edits, signature = self._classifier(value, ctx)
        load(classifier)
        return value.with_module(classifier.network, *edits, signature=signature, adaptation=self._adaptation())

    def _adaptation(self) -> Adaptation:
        if self.adapt == "means":  # whose scores are twice the cosine
            return Adaptation(method="centroid", settings={"scale": self.scale / 2, "distance": "cosine"})
        settings = {"scale": self.scale, "steps": self.adapt_steps, "rate": self.adapt_rate}
        return Adaptation(method="cosine", settings=settings)

    def _samples(self, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_classes, require_finite

        samples = require_classes(ctx.dataset(self.data), where="meta.baseline")
        require_finite(samples.inputs, where="meta.baseline: data")
        require_fitting(self.augment, samples, where="meta.baseline: augment")
        return samples

    def _classifier(self, value: Network, ctx: Context) -> tuple[Classifier, tuple[Edit, ...], Signature]:
        from mapsto.nn.meta.adaptation.cosine import Classifier
        from mapsto.nn.network.head import headless

        module = value.module()
        edit, signature = headless(value, module)
        size, classes = int(signature.outputs[0].shape[-1]), len(self._samples(ctx).classes)
        return Classifier(module, size, classes, self.scale), (edit,) if edit else (), signature

    def _loss(
        self, value: Network, call: nn.Module, item: Batch, weights: Tensor | None, augmenter: Augmenter
    ) -> Tensor:
        from mapsto.nn.train.losses import of_drawn

        drawn = augmenter(item.inputs, item.labels, item.step, value.signature.preprocessing)
        return of_drawn(call, drawn, weights=weights, smoothing=self.smoothing)

    def _validation(self, value: Network, ctx: Context) -> Callable[[Any], dict[str, float]] | None:
        from mapsto.nn.meta.evaluation import episode_metrics

        if self.validation is None:
            return None
        episodes = ctx.tasks(self.validation)
        chosen = [episodes[number] for number in range(self.validation_episodes)]

        def validate(classifier: Classifier) -> dict[str, float]:
            before = value.signature.preprocessing
            return episode_metrics(classifier.network, before, self._adaptation(), chosen, device=ctx.device)

        return validate
