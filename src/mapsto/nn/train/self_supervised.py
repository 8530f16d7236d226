"""Training an embedding of images or rows without labels: what every such mapping shares.

A mapping gives what is trained beside the network, such as a projector or a decoder, and the loss of a batch. The result is the embedding:
a head that the network had is left out, since it was for another embedding. `adapt.*` gives it a new one.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["SelfSupervised"]


class SelfSupervised(Optimisation, Process[Network, Network]):
    """The embedding of a network after training on samples without labels."""

    data: DataSource = Field(description="The samples; their labels are never read.")
    epochs: int = Field(default=20, ge=1, description="Passes over the data.")
    batch_size: int = Field(default=256, ge=2, description="Samples of a step.")
    augment: Augmentations = Field(default=(), description="Random changes of each sample, in order.")
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = Field(
        default="adamw",
        description="`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="The highest learning rate of the schedule.")

    fewest: ClassVar[int] = 1
    """Samples without which there is nothing to learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_mixing(self.augment, "there are no labels to mix", where=self.name)

    @abstractmethod
    def trained(self, network: nn.Module, value: Network) -> nn.Module:
        """A module with the network, which gives an embedding, as its part ``network``, and all that is trained beside it."""

    @abstractmethod
    def loss(self, trained: nn.Module, item: Batch, augmenter: Augmenter, value: Network) -> Tensor:
        """Of a batch, a scalar."""

    def items(self, value: Network, ctx: Context) -> Batches:
        from mapsto.nn.train.batches import Batches

        return Batches(self._samples(ctx), self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        """Raises `DataError` for no sample or NaN, `DomainError` where the network has no embedding or the mapping is not for it."""
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.loop import Training, TrainingPlan

        refuse_dense(value.signature, where=self.name)
        samples = self._samples(ctx)
        epoch = self.items(value, ctx).per_epoch
        augmenter = Augmenter(self.augment, ctx, samples)

        def loss(call: nn.Module, item: Batch) -> Tensor:
            return self.loss(getattr(call, "module", call), item, augmenter, value)

        return Training(
            self._made(value),
            state,
            plan=TrainingPlan(optimisation=self, rule=self.update_rule(ctx), steps=self.epochs * epoch, epoch=epoch),
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load),
        )

    def _samples(self, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_finite, require_some
        from mapsto.errors import DataError

        samples = require_some(ctx.dataset(self.data), where=f"{self.name}: data")
        if len(samples) < self.fewest:
            raise DataError(
                "there is one sample, and no other that it could be told from",
                where=f"{self.name}: data",
                hint=f"give {self.fewest} or more",
            )
        require_finite(samples.inputs, where=f"{self.name}: data")
        require_fitting(self.augment, samples, where=f"{self.name}: augment")
        return samples

    def _made(self, value: Network) -> nn.Module:
        from mapsto.nn.network.head import headless

        module = value.module()
        headless(value, module)
        return self.trained(module, value)

    def _result(self, value: Network, load: Load) -> Network:
        from mapsto.nn.network.head import headless

        edit, signature = headless(value, value.module())
        network: Any = load(self._made(value)).get_submodule("network")
        return value.with_module(network, *([edit] if edit else []), signature=signature, adaptation=None)
