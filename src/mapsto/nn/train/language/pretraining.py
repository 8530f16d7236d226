"""Further pretraining of an encoder on texts without labels: the fields, the batches and the loop that its mappings share.

An objective holds the encoder and what is trained beside it, a head or a decoder, and gives the loss of a batch; what comes out is the
encoder alone, of the same architecture (Gururangan et al., "Don't Stop Pretraining: Adapt Language Models to Domains and Tasks", 2020).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Network
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.networks.hf import TextEncoder
    from mapsto.nn.train.language.length_batches import LengthBatches, TextBatch
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Pretraining"]

_FRESH = 10.0
"""The learning rate of what begins with random weights, in units of the encoder's."""
_LEAST = 2
"""Texts that there must be."""


class Pretraining(Optimisation, Process[Network, Network]):
    """The fields of every mapping that trains an encoder further on texts without labels."""

    data: DataSource = Field(description="Texts; their labels are not read.")
    steps: int = Field(default=500, ge=1, description="Mini-batches in all.")
    batch_size: int = Field(default=32, ge=2, description="Texts of a step; they are of like length.")
    layers: int | None = Field(
        default=None,
        ge=1,
        description="How many layers are trained, the top ones: those below stay as they are, which saves time; None: all, with the words.",
    )
    length: int | None = Field(
        default=64,
        ge=4,
        description="The most tokens of a text that are read in training; None: as many as the network reads.",
    )
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = Field(
        default="adamw", description="`adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`."
    )
    learning_rate: float = Field(
        default=3e-5,
        gt=0,
        description="The highest learning rate of the encoder; what is thrown away learns ten times as fast.",
    )
    warmup: int = Field(default=20, ge=0, description="Steps over which the rate first rises linearly from 0.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled decay of the weights.")
    clip: float | None = Field(default=1.0, gt=0, description="Highest norm of the gradient; None for no limit.")

    @abstractmethod
    def objective(self, encoder: TextEncoder, ids: NDArray[np.int64], value: Network) -> nn.Module:
        """The encoder, as `network`, and what is trained beside it; ``forward`` of what `inputs` gives is the loss, a scalar.

        Parameters
        ----------
        encoder
            The network's module, a copy.
        ids
            All texts, (N, L).
        value
            The network.
        """

    @abstractmethod
    def inputs(self, ids: NDArray[np.int64], value: Network, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """What the objective is given of a batch of texts (B, L), changed at random."""

    def items(self, value: Network, ctx: Context) -> LengthBatches:
        from mapsto.nn.train.language.length_batches import LengthBatches

        padding = value.signature.preprocessing.padding
        return LengthBatches(
            self._ids(value, ctx), padding, self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric
        )

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        """Raises `DomainError` where the network is no text encoder, `DataError` where there are too few texts."""
        import torch

        from mapsto.nn.train.language.encoder_parts import train_top, tuned_parts
        from mapsto.nn.train.loop import Training, TrainingPlan

        ids = self._ids(value, ctx)
        module = self._made(value, ids)
        network: Any = module.network
        train_top(network, self.layers)
        inside = {id(parameter) for parameter in network.parameters()}
        factors = {name: _FRESH for name, each in module.named_parameters() if id(each) not in inside}
        per_epoch = self.items(value, ctx).per_epoch

        def loss(call: nn.Module, item: TextBatch) -> Tensor:
            rng = np.random.default_rng(int(torch.randint(1 << 62, ()).item()))
            return call(*(torch.as_tensor(each, device=ctx.device) for each in self.inputs(item.ids, value, rng)))

        def mode(worked: nn.Module) -> None:
            worked.train()
            worked.network.eval()  # type: ignore[union-attr]
            for part in tuned_parts(worked.network, self.layers):  # type: ignore[arg-type]
                part.train()

        plan = TrainingPlan(
            optimisation=self, rule=self.update_rule(ctx), steps=self.steps, epoch=per_epoch, factors=factors
        )
        return Training(
            module,
            state,
            plan=plan,
            fabric=ctx.fabric,
            loss=loss,
            result=lambda load: self._result(value, load, ids),
            mode=mode,
        )

    def _made(self, value: Network, ids: NDArray[np.int64]) -> nn.Module:
        from mapsto.nn.train.language.encoder_parts import encoder_of

        return self.objective(encoder_of(value, where=self.name), ids, value)

    def _result(self, value: Network, load: Load, ids: NDArray[np.int64]) -> Network:
        return self.finished(value, load(self._made(value, ids)))

    def finished(self, value: Network, module: nn.Module) -> Network:
        """What comes out of the trained objective: the network with the encoder's tensors."""
        return value.with_module(cast("Any", module).network)

    def _ids(self, value: Network, ctx: Context) -> NDArray[np.int64]:
        """The texts as token ids (N, L); of pairs each text by itself."""
        from mapsto.data.checks import require_some
        from mapsto.nn.train.language.encoder_parts import encoder_of
        from mapsto_runtime.preprocessing.texts import trimmed

        encoder_of(value, where=self.name)
        samples = require_some(ctx.dataset(self.data, for_=value.signature.preprocessing), where=self.name)
        ids = np.asarray(samples.inputs)
        if ids.dtype.kind not in "iu" or ids.ndim not in (2, 3):
            raise DataError(
                f"samples of shape {ids.shape[1:]} are no texts", where=f"{self.name}: data", hint="give datasets.text"
            )
        ids = ids.reshape(-1, ids.shape[-1]).astype(np.int64)
        if len(ids) < _LEAST:
            raise DataError(f"{len(ids)} text is too little", where=f"{self.name}: data", hint=f"give {_LEAST} or more")
        if self.length is not None and ids.shape[1] > self.length:
            ids = ids[:, : self.length]
        return trimmed(ids, value.signature.preprocessing.padding)
