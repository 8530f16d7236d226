"""Look ahead before each step: weights and a learning rate for every one of them move so that learning the new spares the old.

A few inner steps over the parts of a mini-batch, an outer loss on the mini-batch and replayed samples, then first the rates and by these
the weights follow its gradient (Gupta, Yadav and Paull, "La-MAML: Look-ahead Meta Learning for Continual Learning", 2020). A meta-trained
network brings its first weights, its rates (`meta.metasgd`) or its inner rate (`meta.maml`), and its head, whose rows stand for any class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import ColumnType, Model, Network, Package
from mapsto.nn.online.loop import Online
from mapsto.process import Process

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner, Task

__all__ = ["LaMaml"]


def _small_network() -> Network:
    from mapsto import discovery

    return discovery.find("mappings", "networks.mlp")(inputs=3, widths=(8,), classes=2)(seed=0)


class LaMaml(Online, Process[Network | Model, Model]):  # pyright: ignore[reportGeneralTypeIssues] - it takes less than others
    """A network that goes on learning by learned rates; its head grows a row for each new class.

    >>> from mapsto import datasets, networks, streams
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> network = networks.conv4(data=digits, width=16, blocks=2)(seed=0)
    >>> model = LaMaml(stream=streams.replay(data=digits, order="by_class"), steps=2)(network)
    >>> block = next(streams.replay(data=digits).open(size=300))
    >>> right = [model.signature.classes[k] for k in model.open().predict(block).argmax(1)] == block.y
    >>> bool(right.mean() > 0.5), bool(model.arrays["rates.features.0.0.weight"].std() > 0)
    (True, True)
    """

    memory: float = Field(default=1.0, ge=0)
    """Megabytes (10⁶ bytes) of past samples: images at one byte a channel and pixel."""
    batch: int = Field(default=10, ge=1)
    """Labelled events of a mini-batch; 10 in the paper."""
    replay: int = Field(default=20, ge=0)
    """Past samples in the outer loss."""
    inner_steps: int = Field(default=5, ge=1)
    """Parts of the mini-batch, each an inner step; 5 in the paper."""
    steps: int = Field(default=1, ge=1)
    """On each mini-batch, with other past samples each time; "glances" in the paper."""
    inner_rate: float | None = Field(default=None, gt=0)
    """The first rate of every parameter; by default the network's own, which are learned or its inner rate, else 0.1."""
    rate_of_rates: float = Field(default=0.1, ge=0)
    """η, by which the rates learn; 0 keeps them."""
    clip: float = Field(default=2.0, gt=0)
    """The largest norm of the gradients of all weights, and of those of all rates; 2 in the paper."""
    second_order: bool = False
    """Whether the outer gradient flows through the inner gradients, which costs about twice as much."""
    part: Literal["head", "lora", "all"] = "all"
    """What is trained: the head, low-rank adapters and the head, or all."""
    rank: int = Field(default=8, ge=1)
    """Of adapters."""
    batch_norm: Literal["auto", "stored", "running"] = "auto"
    """Which statistics batch norms take, as in `online.finetune`."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of adapters, and of what is drawn."""
    categories: int = Field(
        default=1000, ge=1, description="Not used here: the network's own preprocessing says what words become."
    )

    encodes: ClassVar[bool] = False
    uses_torch: ClassVar[bool] = True
    contract: ClassVar[dict[str, Any]] = {
        "stream": {"sea": {"events": 300}},
        "every": 100,
        "memory": 0.002,
        "batch": 20,
        "inner_steps": 2,
        "replay": 5,
    }
    contract_input: ClassVar[Any] = staticmethod(_small_network)

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        from mapsto.nn.online.trained.growing_network import GrowingNetwork, Training, trainable
        from mapsto.nn.online.trained.learned_rates import LearnedRates
        from mapsto.nn.online.trained.learner import TrainedLearner
        from mapsto.nn.online.trained.look_ahead import LookAhead, LookAheadFields
        from mapsto.nn.online.trained.samples import RawSamples

        network = trainable(base, where="online.la_maml")
        samples = RawSamples(network.signature, types=types)
        training = Training(**{name: fields[name] for name in ("part", "rank", "batch_norm", "seed")})
        growing = GrowingNetwork(network, training, where="online.la_maml")
        settings = LookAheadFields(
            most_bytes=int(fields["memory"] * 1e6),
            **{
                name: fields[name]
                for name in ("batch", "replay", "inner_steps", "steps", "rate_of_rates", "clip", "second_order")
            },
        )
        rates = LearnedRates(network, growing, fields["inner_rate"])
        return TrainedLearner(LookAhead(growing, rates, samples, settings), samples, most_late=int(fields["late"]))
