"""mapsto's steps inside a user's own Lightning training: prune, quantize or re-head a part of a `LightningModule` as it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapsto.context import Context
from mapsto.errors import DomainError, MissingExtra
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping

try:
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError as error:
    raise MissingExtra("lightning", "lightning", where="mapsto.interop.lightning") from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor, nn

__all__ = ["ApplyMapping"]


class ApplyMapping(Callback):
    """Applies a mapping to a submodule at the start of an epoch, then makes the optimisers anew.

    Parameters
    ----------
    mapping
        From Network to Network, such as ``prune.magnitude(macs=0.5)`` or a chain.
    attribute
        Dotted name of the submodule in the `LightningModule`; its class must be importable.
    example
        A batch of the submodule's input, shape (N, ...).
    epoch
        At the start of which epoch, from 0.
    arguments
        What the submodule's constructor was called with, where it cannot be read off its attributes.
    preprocessing
        How raw samples become its input; by default they are used as they are.
    seed
        For the mapping's random draws.

    After it has been applied, `network` is the mapping's result; the submodule in training starts from it.
    """

    def __init__(
        self,
        mapping: Mapping[Network, Network],
        attribute: str,
        example: Tensor,
        *,
        epoch: int = 0,
        arguments: dict[str, Any] | None = None,
        preprocessing: Preprocessing | None = None,
        seed: int = 0,
    ) -> None:
        self.mapping = mapping
        self.attribute = attribute
        self.example = example
        self.epoch = epoch
        self.arguments = arguments
        self.preprocessing = preprocessing
        self.seed = seed
        self.network: Network | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises `DomainError` where there is no such submodule."""
        if trainer.current_epoch != self.epoch:
            return
        import torch

        module = self._submodule(pl_module)
        on = next(module.parameters(), self.example).device
        network = Network.from_module(
            module, self.example.to(on), arguments=self.arguments, preprocessing=self.preprocessing
        )
        with torch.random.fork_rng(), torch.enable_grad():
            self.network = Context(seed=self.seed).apply(self.mapping, network)
        parent, _, name = self.attribute.rpartition(".")
        setattr(pl_module.get_submodule(parent), name, self.network.module(device=on).train())
        trainer.strategy.setup_optimizers(trainer)

    def _submodule(self, pl_module: LightningModule) -> nn.Module:
        try:
            return pl_module.get_submodule(self.attribute)
        except AttributeError as error:
            raise DomainError(
                str(error),
                where=f"ApplyMapping(attribute={self.attribute!r})",
                hint="name a submodule of the LightningModule",
            ) from error
