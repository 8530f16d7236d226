"""Train with a penalty that drives whole channels to zero, so that pruning them afterwards costs little.

``ℓ + λ Σ_g Σ_c ‖w_c‖₂`` over the dependency groups g and their channels c (`group_lasso`; Wen et al., "Learning Structured Sparsity in
Deep Neural Networks", 2016, over groups as in Fang et al., "DepGraph", 2023), ``ℓ + λ Σ |γ|`` over batch-norm scales (`batch_norm`; Liu
et al., "Learning Efficient Convolutional Networks through Network Slimming", 2017), or ``ℓ + ½ λ_t Σ_{c goes} ‖w_c‖²`` over the
channels that a criterion would drop, with ``λ_t = min(λ (1 + ⌊t / K⌋), τ)`` at step t (`growing`; Wang et al., "Neural Pruning via
Growing Regularization", 2021). ℓ is the loss of any training by gradient steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network, Stream
from mapsto.mapping import MappingField
from mapsto.nn.prune.criterion import criterion_of, training_of
from mapsto.process import Items, Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.train.loop import Training

__all__ = ["Sparse"]


class Sparse(Process[Network, Network]):
    """The network as `train` trains it, its channels pushed to zero meanwhile; prune it afterwards.

    Raises `SpecError` for a `train` that is no training by gradient steps, where `growing` has no criterion, or another penalty has
    one; `DomainError` for a network without channels that can be pruned, or, with `batch_norm`, without batch norms.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> criterion, training = prune.magnitude(macs=0.4), train.supervised(data=digits, epochs=3)
    >>> accuracy = lambda net: evaluate.accuracy(data=digits)(net).metrics["accuracy"].value
    >>> sparse = Sparse(train=training, penalty="growing", criterion=criterion, strength=0.02, every=1)(net)
    >>> accuracy(criterion(sparse)) > accuracy(criterion(training(net))) + 10
    True
    """

    train: MappingField
    """The training whose loss the penalty is added to: ``train.supervised``, ``distill.logits``, or one of ``meta.*``."""
    penalty: Literal["group_lasso", "batch_norm", "growing"] = "group_lasso"
    """What is added to the loss."""
    strength: float = Field(default=1e-4, ge=0)
    """λ; with `growing` how much it rises every `every` steps. 1e-4 as in Liu et al. and in Wang et al.; short trainings need
    more."""
    criterion: MappingField | None = None
    """With `growing`: the ``prune.*`` mapping that says, of the network as given, which channels will go."""
    every: int = Field(default=5, ge=1)
    """K, steps between rises of λ, with `growing`; 5 in Wang et al."""
    ceiling: float = Field(default=1.0, gt=0)
    """τ, the highest λ of `growing`; 1 in Wang et al."""

    contract: ClassVar[dict[str, Any]] = {
        "train": {
            "train.supervised": {
                "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4}},
                "epochs": 1,
                "batch_size": 8,
            }
        },
        "penalty": "growing",
        "criterion": {"prune.magnitude": {"macs": 0.5, "norm": 1}},
        "strength": 0.01,
        "every": 1,
    }

    def __post_init__(self) -> None:
        training_of(self.train, where="train.sparse")
        if (self.penalty == "growing") != (self.criterion is not None):
            given = "there is no criterion" if self.criterion is None else "there is a criterion"
            raise SpecError(
                f"penalty is {self.penalty}, and {given}",
                where="train.sparse",
                hint="give both penalty: growing and criterion: {prune.magnitude: {macs: 0.5}}, or neither",
            )
        if self.criterion is not None:
            criterion_of(self.criterion, where="train.sparse", resumable=True)

    def items(self, value: Network, ctx: Context) -> Items | Stream:
        return self._training.items(value, ctx)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.meta.learner_module import Learner
        from mapsto.nn.train.loop import Training

        live = self._training.open(value, state, ctx)
        if not isinstance(live, Training):
            raise SpecError(
                f"train is {self.train.name}, which has no loss that a penalty could be added to",
                where="train.sparse",
                hint="give one that trains by gradient steps, such as train.supervised",
            )
        network = live.module.network if isinstance(live.module, Learner) else live.module
        live.add_to_loss(self._penalty(value, network, ctx))
        return live

    @property
    def _training(self) -> Process[Network, Network]:
        return training_of(self.train, where="train.sparse")

    def _penalty(self, value: Network, module: nn.Module, ctx: Context) -> Callable[[int], Tensor]:
        """Step → what is added to the loss of `module`."""
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.prune.budget_check import told_reached
        from mapsto.nn.prune.dependency_groups import find_groups
        from mapsto.nn.prune.sparsity_penalty import Penalty
        from mapsto.nn.prune.structured import choice, ranked

        if self.criterion is None:
            groups = find_groups(module, example_batch(value)).groups
            penalty = Penalty(module, groups)
            if not groups or (self.penalty == "batch_norm" and not penalty.has_scales):
                raise DomainError(
                    f"the network has no {'batch norms' if groups else 'layers'} whose channels could be pruned",
                    where="train.sparse",
                    hint="choose another penalty, or train without one",
                )
            of = penalty.batch_norm if self.penalty == "batch_norm" else penalty.group_lasso
            return lambda step: self.strength * of()
        criterion = criterion_of(self.criterion, where="train.sparse")
        settings, importance = criterion.settings, criterion.importance(value, ctx)
        found = ranked(
            value, importance, embedding=settings.prune_embedding, padded=settings.padded, where="train.sparse"
        )
        kept = choice(found, settings, judge=criterion.judge(value, ctx), where="train.sparse").kept
        told_reached(value, found.shrunk(kept), settings.budget, ctx, verb="what the criterion will make of it")
        growing = Penalty(module, [group for group in found.groups if group.name in kept])

        def term(step: int) -> Tensor:
            return 0.5 * min(self.strength * (1 + step // self.every), self.ceiling) * growing.squares(kept)

        return term
