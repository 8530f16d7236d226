"""Training on a labelled source so that the features of source and target cannot be told apart: what every such mapping shares.

``loss = CE(f(x_s), y_s) + λ(p) · d(z_s, z_t)`` with d a distance of the features' distributions, p the share of steps that are done and
``λ(p) = λ (2 / (1 + exp(−10 p)) − 1)``, which lets the labels begin (Ganin et al., "Domain-Adversarial Training of Neural Networks", 2016).
Batch norm sees each domain by itself, and the result has the target's statistics (Li et al., "Revisiting Batch Normalization for Practical
Domain Adaptation", 2016). Labelled samples of the target are left to the head, so that they can judge what was trained.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.train.optimizer import Optimisation
from mapsto.nn.transfer.domains import UNLABELLED, DomainFields
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.semi.batches import Both, BothBatches
    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.loop import Load, Training
    from mapsto.nn.transfer.domains import Domains

__all__ = ["DomainTraining"]


class DomainTraining(Optimisation, DomainFields, Process[Network, Network]):
    """A network trained on the source, its features drawn together with the target's."""

    steps: int = Field(default=500, ge=1, description="Gradient steps.")
    batch_size: int = Field(default=64, ge=2, description="Samples of a step, as many of each domain.")
    weight: float = Field(default=1.0, ge=0, description="λ: how much the distance of the domains counts in the end.")
    augment: Augmentations = Field(default=(), description="Random changes of each sample of both domains, in order.")
    batch_norm: Literal["each", "keep"] = Field(
        default="each",
        description=(
            "`each`: batch norm sees each domain by itself, and the result has the target's statistics; `keep`: it keeps those of the "
            "pretraining, as for photographs where there are few."
        ),
    )
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = Field(
        default="adam",
        description="`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="The highest learning rate of the schedule.")

    contract: ClassVar[dict[str, Any]] = {"target": UNLABELLED}

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_mixing(self.augment, "each sample is of one domain", where=self.name)

    def critic(self, size: int) -> nn.Module | None:
        """What is trained beside the network, for embeddings of that size; None for nothing."""
        return None

    @abstractmethod
    def distance(self, source: Tensor, target: Tensor, critic: nn.Module | None, weight: float) -> Tensor:
        """The term of the loss of embeddings (B, D) of each domain, its weight of now in it."""

    def items(self, value: Network, ctx: Context) -> BothBatches:
        from mapsto.nn.semi.batches import BothBatches

        domains = self._domains(value, ctx)
        return BothBatches(domains.source, domains.target, self.batch_size, 1.0, ctx.random, ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        """Raises `DomainError` in several processes, and `DataError` as `domains_of` does."""
        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.loop import Training, TrainingPlan

        domains = self._domains(value, ctx)
        epoch = self.items(value, ctx).per_epoch
        augmenter = Augmenter(self.augment, ctx, domains.source)

        def loss(call: nn.Module, item: Both) -> Tensor:
            return self._loss(call, item, augmenter, value)

        return Training(
            self._module(value, domains)[0],
            state,
            plan=TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.steps, epoch=epoch),
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load, domains, ctx),
            mode=self._train_mode,
        )

    def _domains(self, value: Network, ctx: Context) -> Domains:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.nn.transfer.domains import domains_of

        if ctx.numerics.world_size > 1:
            raise DomainError(
                "the two domains are compared within one process", where=self.name, hint="run it in a single process"
            )
        domains = domains_of(value, self, ctx, where=self.name)
        require_fitting(self.augment, domains.source, where=f"{self.name}: augment")
        return domains

    def _module(self, value: Network, domains: Domains) -> tuple[nn.ModuleDict, Head | None]:
        """The network with a head for the source's classes, and the critic."""
        from torch import nn

        from mapsto.nn.network.head import embedding_size, example_batch, headed

        module = value.module()
        edit, _ = headed(value, module, domains.source.classes)
        critic = self.critic(embedding_size(module, example_batch(value)))
        return nn.ModuleDict({"network": module} | ({} if critic is None else {"critic": critic})), edit

    def _train_mode(self, module: nn.Module) -> None:
        from torch.nn.modules.batchnorm import _BatchNorm

        module.train()
        if self.batch_norm == "keep":
            for part in module.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()

    def _loss(self, call: Any, item: Both, augmenter: Augmenter, value: Network) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        from mapsto.nn.network.head import embed_and_classify

        if item.pool is None:
            raise DomainError("there is no target", where=self.name, hint="give target")
        parts = getattr(call, "module", call)
        before = value.signature.preprocessing
        network, step = parts["network"], item.labelled.step
        known = augmenter(item.labelled.inputs, item.labelled.labels, 2 * step, before).x
        asked = augmenter(item.pool.inputs, item.pool.labels, 2 * step + 1, before).x
        source, scores = embed_and_classify(network, known)
        target, _ = embed_and_classify(network, asked)
        supervised = cross_entropy(scores, torch.as_tensor(item.labelled.labels, device=scores.device))
        weight = self.weight * (2 / (1 + math.exp(-10 * step / self.steps)) - 1)
        return supervised + self.distance(source, target, getattr(parts, "critic", None), weight)

    def _result(self, value: Network, load: Load, domains: Domains, ctx: Context) -> Network:
        from mapsto.nn.adapt.batch_norm_reestimation import reestimate
        from mapsto.nn.network.build import taking, with_output
        from mapsto.nn.transfer.heads import with_labelled

        both, edit = self._module(value, domains)
        network = load(both).get_submodule("network")
        if self.batch_norm == "each":
            reestimate(network, domains.target, value.signature.preprocessing, prior=0)
        classes = domains.source.classes
        signature = with_output(taking(value.signature, domains.source), len(classes), classes)
        trained = value.with_module(network, *([edit] if edit else []), signature=signature, adaptation=None)
        return with_labelled(trained, domains, ctx)
