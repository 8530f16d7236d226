"""Adapt a classifier to a target without labels, and without the source: make its answers there sure, by the norm layers alone.

``min_{γ, β} −mean_i Σ_k p_ik log p_ik`` over the scales γ and shifts β of norm layers, batch norms taking each batch's statistics (Wang et
al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", 2021); the result has the statistics of the whole target. Nothing keeps the
answers from becoming all the same: where they come to fewer than half as many classes as without the training, the statistics alone are
taken, and where these do the same, the network as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.nn.transfer.domains import UNLABELLED
from mapsto.process import Process, State

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Tent"]


class Tent(Optimisation, Process[Network, Network]):
    """The classifier with norm layers that suit the target; everything else stays."""

    target: DataSource
    """Samples of the domain that the network is for; their labels are never read."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the target; one in the paper."""
    batch_size: int = Field(default=64, ge=2)
    """Samples of a step: batch norm needs many, of all classes."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adam"
    """`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The rate, 0.001 in the paper."""
    schedule: Literal["cosine", "onecycle", "constant", "plateau"] = "constant"
    """`constant` in the paper; `cosine` falls to 0."""

    contract: ClassVar[dict[str, Any]] = {"target": UNLABELLED}

    def items(self, value: Network, ctx: Context) -> Batches:
        import numpy as np

        from mapsto.kinds import Samples
        from mapsto.nn.train.batches import Batches

        inputs = self._inputs(value, ctx)
        places = Samples(
            inputs=inputs, labels=np.arange(len(inputs)), classes=(), preprocessing=value.signature.preprocessing
        )
        return Batches(places, self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        """Raises `DomainError` for a network without norm layers or without classes, `DataError` for a target that is none."""
        from mapsto.nn.train.loop import Training, TrainingPlan
        from mapsto.nn.transfer.entropy import entropy, only_norms

        inputs = self._inputs(value, ctx)
        epoch = self.items(value, ctx).per_epoch
        before = value.signature.preprocessing

        def loss(call: nn.Module, item: Batch) -> Tensor:
            from mapsto.nn.network.preprocess import prepare

            return entropy(call(prepare(item.inputs, before, device=ctx.device)))

        return Training(
            only_norms(value.module(), where=self.name),
            state,
            plan=TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch),
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load, inputs, ctx),
            mode=_train_norms,
        )

    def _inputs(self, value: Network, ctx: Context) -> NDArray[Any]:
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.transfer.domains import target_of

        refuse_dense(value.signature, where=self.name)
        outputs = value.signature.outputs[0].shape[-1]
        if value.signature.classes is None or value.signature.answers != "classes" or outputs == 1:
            raise DomainError(
                "the network gives no scores of classes, of which there is an entropy",
                where=self.name,
                hint="adapt it first (adapt.linear, adapt.coral)",
            )
        return target_of(self.target, ctx, where=f"{self.name}: target")

    def _result(self, value: Network, load: Load, inputs: NDArray[Any], ctx: Context) -> Network:
        from mapsto.nn.adapt.batch_norm_reestimation import reestimate

        before = value.signature.preprocessing

        def renewed(module: nn.Module) -> nn.Module:
            reestimate(module, inputs, before, prior=0, batch_size=self.batch_size)
            return module

        classes = len(value.signature.classes or ())
        made = {
            "adapted": renewed(load(value.module())),
            "statistics": renewed(value.module()),
            "before": value.module(),
        }
        spread = {name: self._answered(module, value, inputs, ctx) for name, module in made.items()}
        if spread["adapted"] >= max(spread["statistics"], spread["before"]) / 2:
            return value.with_module(made["adapted"])
        left = "statistics" if spread["statistics"] >= spread["before"] / 2 else "before"
        instead = {
            "statistics": "batch norms are given the target's statistics and no more",
            "before": "it stays as it was",
        }
        ctx.warn(
            f"the answers collapse: after the training they come to as many as {spread['adapted']:.1f} of {classes} classes, without it to "
            f"{spread[left]:.1f}; {instead[left]}. Lower learning_rate, give larger batches of all classes, or use adapt.coral"
        )
        return value.with_module(made[left])

    def _answered(self, module: nn.Module, value: Network, inputs: NDArray[Any], ctx: Context) -> float:
        """How many classes the answers to the target are spread over."""
        from mapsto.nn.network.inference import forward
        from mapsto.nn.transfer.spread import answered_classes

        scores = forward(module, inputs, value.signature.preprocessing, device=ctx.device)
        return answered_classes(scores.argmax(1).numpy(), scores.shape[1])


def _train_norms(module: nn.Module) -> None:
    """Batch norms take the statistics of the batch; dropout and all else is as in use."""
    from torch.nn.modules.batchnorm import _BatchNorm

    module.eval()
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.train()
