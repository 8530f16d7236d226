"""Learn an embedding for tasks of other domains: in training every batch norm's output is scaled and shifted at random.

``y = γ z + β``, ``γ ~ N(1, softplus(θ_γ))``, ``β ~ N(0, softplus(θ_β))`` a channel. With tasks of a second domain θ is learned: after a
step on the first with noise, the second without it should go well, ``min_θ L_unseen(φ − α ∇_φ L_seen(φ, θ))`` (Tseng, Lee, Huang and
Yang, "Cross-Domain Few-Shot Classification via Learned Feature-Wise Transformation", 2020).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Adaptation, Network
from mapsto.mapping import TasksSource
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.meta.learner_module import Learner
    from mapsto.nn.train.batches import Task

__all__ = ["FeatureWise"]


class FeatureWise(Episodic):
    """A learner as `meta.protonet` gives it, made for domains that it has not seen; the network needs batch norms.

    Any other learner takes noise of fixed strength by its field `feature_noise`.

    >>> from mapsto import datasets, evaluate, networks
    >>> glyphs = datasets.glyphs(split="validation", characters=40, per_class=8, size=16)
    >>> digits = datasets.episodes(data=datasets.digits(size=16), seed=1)
    >>> network = networks.conv4(data=glyphs, width=8, blocks=3)(seed=0)
    >>> learner = FeatureWise(tasks=datasets.episodes(data=glyphs, queries=5), steps=60, learning_rate=0.005)(network)
    >>> bool(evaluate.episodes(tasks=digits, episodes=50, baseline=network)(learner).metrics["drop"].value < 0)
    True
    """

    feature_noise: float = Field(default=1.0, gt=0, le=10)
    """Factor of both deviations; at 1 they are 0.3 and 0.5 as in the paper, at first or for good."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of the squared distance to class means, by which it adapts as `meta.protonet` does."""
    unseen: TasksSource | None = None
    """Tasks of a second domain, by which θ is learned; None for the fixed one."""
    ahead: float = Field(default=0.1, gt=0)
    """α, the rate of the step after which the second domain is tried."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        """With `unseen` it holds θ, of no use but to be looked at: ``~scale.…`` and ``~shift.…`` for each batch norm."""
        import torch

        from mapsto.nn.meta.feature_wise_transform import SCALE, SHIFT, channels

        found = Adaptation(method="centroid", settings={"scale": self.scale, "distance": "euclidean"})
        if self.unseen is None:
            return found
        if learner is not None:
            return dataclasses.replace(found, tensors=learner.detached())
        tensors: dict[str, Tensor] = {}
        for path, count in channels(value.module()).items():
            tensors[f"~scale.{path}"] = torch.full((count,), SCALE)
            tensors[f"~shift.{path}"] = torch.full((count,), SHIFT)
        return dataclasses.replace(found, tensors=tensors)

    def _objective(
        self, learner: Learner, inputs: Tensor, task: Task, step: int, value: Network, ctx: Context
    ) -> Tensor:
        import torch

        from mapsto.nn.meta.feature_wise_transform import noise, transformed
        from mapsto.nn.train.batches import TaskBatches

        if self.unseen is None:
            return super()._objective(learner, inputs, task, step, value, ctx)
        own = learner.tensors
        paths = [name.removeprefix("~scale.") for name in own if name.startswith("~scale.")]
        learned = {path: (own[f"~scale.{path}"], own[f"~shift.{path}"]) for path in paths}
        drawn = noise(learner.network, self.feature_noise, learned)
        fixed = {path: (scale.detach(), shift.detach()) for path, (scale, shift) in drawn.items()}
        with transformed(learner.network, fixed):
            seen = self.loss(learner, inputs, task, step, ctx)

        point = {name: tensor.detach().requires_grad_() for name, tensor in learner.network.named_parameters()}
        with transformed(learner.network, drawn):
            before = self._loss_at(learner, point, inputs, task)
        gradients = torch.autograd.grad(before, list(point.values()), create_graph=True)
        moved = {
            name: tensor.detach() - self.ahead * gradient
            for (name, tensor), gradient in zip(point.items(), gradients, strict=True)
        }
        other = TaskBatches(self._checked(ctx.tasks(self.unseen), value), self.tasks_per_step, ctx.fabric)[step]
        return seen + self._loss_at(learner, moved, self._prepared(value, ctx)(other), other)

    def _loss_at(self, learner: Learner, point: dict[str, Tensor], inputs: Tensor, task: Task) -> Tensor:
        """The loss at other parameters; running statistics stay as they are."""
        import torch
        from torch.nn.functional import cross_entropy

        from mapsto.nn.train.batches import scores_and_labels

        kept = {name: buffer.clone() for name, buffer in learner.network.named_buffers()}

        def call(batch: Tensor) -> Tensor:
            return torch.func.functional_call(learner.network, {**point, **kept}, (batch,))

        scores, labels = scores_and_labels(cast("nn.Module", call), inputs.flatten(0, 1), task, learner.adaptation)
        return cross_entropy(scores, labels)
