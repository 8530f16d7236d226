"""Train on several environments so that what is learnt holds in all of them: what helps in one and less in another is given up.

``mean_e R_e + λ P`` over environments e with the mean loss R_e of each. `irm`: ``P = mean_e (∂/∂w R_e(w f))²`` at w = 1, which is 0 where
one head is the best in every environment (Arjovsky et al., "Invariant Risk Minimization", 2019, IRMv1); `vrex`: ``P = Var_e R_e``
(Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation", 2021); `coral`: the mean distance of the means and covariances
of the embeddings (Sun and Saenko, "Deep CORAL", 2016, across environments).
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.train.batches import Batch
    from mapsto.nn.train.loop import Load, Training
    from mapsto.nn.transfer.environments import EnvironmentBatches

__all__ = ["Invariant"]


class Invariant(Optimisation, Process[Network, Network]):
    """A classifier trained on samples of several environments, such as hospitals or cameras, for one that is not among them."""

    environments: tuple[DataSource, ...] = Field(min_length=2)
    """The labelled samples of each environment, all of the same classes."""
    penalty: Literal["irm", "vrex", "coral", "none"] = "vrex"
    """What is to be alike in all environments: the best head, the loss, or the embeddings; `none` for the mean loss alone."""
    weight: float = Field(default=1000.0, ge=0)
    """λ: how much the penalty counts; 1,000 and more for `irm` and `vrex`. Above 1 the whole loss is divided by it."""
    begin: float = Field(default=0.2, ge=0, lt=1)
    """Share of the steps, 0 to 1, in which labels alone are learnt, before the penalty counts."""
    steps: int = Field(default=500, ge=1)
    """Gradient steps."""
    batch_size: int = Field(default=1024, ge=2)
    """Samples of each environment a step. The penalty of few samples is noise: take all where they fit."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = Field(
        default="adam",
        description="`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="The highest learning rate of the schedule.")
    schedule: Literal["cosine", "onecycle", "constant", "plateau"] = Field(
        default="constant",
        description="`constant`, since the penalty begins late; `cosine` falls to 0, `onecycle` first rises, `plateau` is lowered.",
    )

    contract: ClassVar[dict[str, Any]] = {
        "environments": [
            {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4, "seed": seed}} for seed in (0, 1)
        ],
        "steps": 4,
    }

    def items(self, value: Network, ctx: Context) -> EnvironmentBatches:
        from mapsto.nn.transfer.environments import EnvironmentBatches

        return EnvironmentBatches(self._environments(ctx), self.batch_size, ctx.random, ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        """Raises `DataError` as `environments_of` does, `DomainError` in several processes and for dense outputs."""
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.train.loop import Training, TrainingPlan

        refuse_dense(value.signature, where=self.name)
        if ctx.numerics.world_size > 1:
            raise DomainError(
                "environments are compared within one process", where=self.name, hint="run it in a single process"
            )
        samples = self._environments(ctx)[0]
        plan = TrainingPlan(
            optimisation=self, rule=self.update_rule(ctx), steps=self.steps, epoch=self.items(value, ctx).per_epoch
        )

        def loss(call: nn.Module, item: list[Batch]) -> Tensor:
            return self._loss(call, item, value)

        return Training(
            self._headed(value, samples)[0],
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load, samples),
        )

    def _environments(self, ctx: Context) -> list[Samples]:
        from mapsto.nn.transfer.environments import environments_of

        return environments_of(self.environments, ctx, where=self.name)

    def _headed(self, value: Network, samples: Samples) -> tuple[nn.Module, Head | None]:
        from mapsto.nn.network.head import headed

        module = value.module()
        edit, _ = headed(value, module, samples.classes)
        return module, edit

    def _loss(self, call: nn.Module, item: list[Batch], value: Network) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        from mapsto.nn.network.head import embed_and_classify
        from mapsto.nn.network.preprocess import prepare

        module = getattr(call, "module", call)
        device = next(module.parameters()).device
        inputs = [prepare(batch.inputs, value.signature.preprocessing, device=device) for batch in item]
        embeddings, scores = embed_and_classify(module, torch.cat(inputs))
        labels = torch.cat([torch.as_tensor(batch.labels, device=device) for batch in item])
        sizes = [len(batch.labels) for batch in item]
        each = list(zip(scores.split(sizes), labels.split(sizes), strict=True))
        losses = torch.stack([cross_entropy(part, wanted) for part, wanted in each])
        if self.penalty == "none" or item[0].step < self.begin * self.steps:
            return losses.mean()
        penalty = self._penalty(losses, each, list(embeddings.split(sizes)))
        return (losses.mean() + self.weight * penalty) / max(1.0, self.weight)

    def _penalty(self, losses: Tensor, each: list[tuple[Tensor, Tensor]], embeddings: list[Tensor]) -> Tensor:
        import torch

        from mapsto.nn.transfer.environments import feature_distance, scale_gradient

        if self.penalty == "irm":
            return torch.stack([scale_gradient(*part).square() for part in each]).mean()
        if self.penalty == "vrex":
            return losses.var(unbiased=False)
        return torch.stack([feature_distance(*pair) for pair in combinations(embeddings, 2)]).mean()

    def _result(self, value: Network, load: Load, samples: Samples) -> Network:
        from mapsto.nn.network.build import taking, with_output

        module, edit = self._headed(value, samples)
        signature = with_output(taking(value.signature, samples), len(samples.classes), samples.classes)
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)
