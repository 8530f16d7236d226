"""Train a network on the stream itself, the head, adapters or all of it, by a method that keeps it from forgetting what came before.

Of classes that come one after another plain training remembers the last. A memory of past samples, bounded in bytes, is replayed beside
each mini-batch: labels (Chaudhry et al., 2019), or labels and the scores of then (DER++: Buzzega et al., "Dark Experience for General
Continual Learning", 2020). Further methods are files of ``mapsto/nn/online/memory/``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.data.augment import Augmentations
from mapsto.errors import SpecError, nearest
from mapsto.kinds import ColumnType, Json, Model, Network, Package
from mapsto.nn.online.loop import Online
from mapsto.nn.online.trained.image_changes import nodes_of, operations_of, refuse_unfit
from mapsto.nn.online.trained.method_names import method_names
from mapsto.process import Process

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner, Task

__all__ = ["Finetune"]


def _small_network() -> Network:
    from mapsto import discovery

    return discovery.find("mappings", "networks.mlp")(inputs=3, widths=(8,), classes=2)(seed=0)


class Finetune(Online, Process[Network | Model, Model]):  # pyright: ignore[reportGeneralTypeIssues] - it takes less than others
    """A network that goes on learning, from itself or from the model of an earlier stream; its head grows a row for each new class.

    Events become samples by the network's own preprocessing. A question is answered one sample a call, and a mini-batch is as many labelled
    events as `batch` says.

    >>> from mapsto import datasets, networks, streams
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> stream = streams.replay(data=digits, order="by_class")
    >>> network = networks.conv4(data=digits, width=16, blocks=2)(seed=0)
    >>> block = next(streams.replay(data=digits).open(size=300))
    >>> for method in ("none", "replay"):
    ...     model = Finetune(stream=stream, method=method, batch=8, steps=3, rate=0.003)(network)
    ...     right = [model.signature.classes[k] for k in model.open().predict(block).argmax(1)] == block.y
    ...     print(method, bool(right.mean() > 0.6))
    none False
    replay True
    """

    part: Literal["head", "lora", "all"] = "all"
    """What is trained: the head, low-rank adapters and the head, or all."""
    method: str = "derpp"
    """Against forgetting: none, replay, balanced_replay, der, derpp, agem, ewc, lwf, icarl or gdumb."""
    memory: float = Field(default=1.0, ge=0)
    """Megabytes (10⁶ bytes) of past samples: images at one byte a channel and pixel, and scores where the method keeps them."""
    batch: int = Field(default=16, ge=1)
    """Labelled events of a mini-batch."""
    replay: int = Field(default=32, ge=0)
    """Past samples in every step, drawn anew."""
    steps: int = Field(default=1, ge=1)
    """On each mini-batch."""
    optimizer: Literal["sgd", "adam"] = "adam"
    """Its averages are part of the model."""
    rate: float = Field(default=1e-3, gt=0)
    """The learning rate."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Of SGD."""
    alpha: float | None = Field(default=None, ge=0)
    """Weight of what keeps the old: kept scores (der, derpp), the earlier network's answers (lwf), the penalty (ewc); by default the
    method's own: 1, 1 and 100."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of replayed labels in derpp; 0.5 to 1 in its paper."""
    consolidate: int = Field(default=1000, ge=1)
    """Labelled events after which ewc, lwf and icarl take what is learnt for what is to be kept, besides where new classes come; gdumb
    trains anew after so many, and whenever their number has doubled."""
    passes: int = Field(default=20, ge=1)
    """Over the memory where gdumb trains anew."""
    rank: int = Field(default=8, ge=1)
    """Of adapters."""
    batch_norm: Literal["auto", "stored", "running"] = "auto"
    """`stored`: by the statistics that the network came with, which no part of the stream can pull to itself; `running`: by each step's, of
    the mini-batch and replayed samples together, and answers by their running average, which leans to the last classes; `auto`: stored, but
    running for a network that has not been trained."""
    augment: Augmentations = ()
    """Random changes of images, drawn anew each time one is learnt from, new or replayed. None may mix samples."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of adapters, and of what is drawn."""
    categories: int = Field(
        default=1000, ge=1, description="Not used here: the network's own preprocessing says what words become."
    )

    version: ClassVar[int] = 2
    uses_torch: ClassVar[bool] = True
    encodes: ClassVar[bool] = False
    contract: ClassVar[dict[str, Any]] = {
        "stream": {"sea": {"events": 300}},
        "every": 100,
        "memory": 0.002,
        "batch": 20,
        "replay": 10,
    }
    contract_input: ClassVar[Any] = staticmethod(_small_network)

    def __post_init__(self) -> None:
        known = method_names()
        if self.method not in known:
            raise SpecError(
                f"field 'method': unknown method against forgetting '{self.method}'",
                where="online.finetune",
                hint=nearest(self.method, known),
            )
        refuse_unfit(self.augment, where="online.finetune")

    def own_fields(self) -> dict[str, Json]:
        if not self.augment:
            return super().own_fields()
        return {**dataclasses.replace(self, augment=()).own_fields(), "augment": nodes_of(self.augment)}

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        from mapsto.nn.online.trained.finetuner import Finetuner
        from mapsto.nn.online.trained.growing_network import GrowingNetwork, Training, trainable
        from mapsto.nn.online.trained.learner import TrainedLearner
        from mapsto.nn.online.trained.method import MethodFields, method_of
        from mapsto.nn.online.trained.samples import RawSamples

        network = trainable(base, where="online.finetune")
        samples = RawSamples(network.signature, operations_of(fields["augment"]), types)
        training = Training(
            **{name: fields[name] for name in ("part", "rank", "optimizer", "rate", "momentum", "batch_norm", "seed")}
        )
        kind = method_of(fields["method"])
        growing = GrowingNetwork(network, training, where="online.finetune", later=kind.later)
        settings = MethodFields(
            most_bytes=int(fields["memory"] * 1e6),
            **{name: fields[name] for name in ("replay", "alpha", "beta", "consolidate", "passes", "seed")},
        )
        method = kind(growing, samples, settings)
        trainer = Finetuner(growing, method, **{name: fields[name] for name in ("batch", "steps", "consolidate")})
        return TrainedLearner(trainer, samples, most_late=int(fields["late"]))
