"""Learn to learn the next concept from all that came: weights that adapt in a few steps, adapted to the present one.

Samples of every concept are kept. After each mini-batch the weights follow outer gradients of these concepts, and an inner loop on the
present one gives the weights that answer (Finn, Rajeswaran, Kakade and Levine, "Online Meta-Learning", 2019). A concept is told by a column
of the stream, or begins where a class comes that is new after a quiet time, or where errors rise (DDM: Gama et al., 2004).
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

__all__ = ["FollowTheMetaLeader"]


def _small_network() -> Network:
    from mapsto import discovery

    return discovery.find("mappings", "networks.mlp")(inputs=3, widths=(8,), classes=2)(seed=0)


class FollowTheMetaLeader(Online, Process[Network | Model, Model]):  # pyright: ignore[reportGeneralTypeIssues] - it takes less
    """A network that is adapted to the present concept, from weights that all concepts so far have made; a returning one is known.

    >>> from mapsto import datasets, networks, streams
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> network = networks.conv4(data=digits, width=16, blocks=2)(seed=0)
    >>> stream = streams.replay(data=digits, order="shuffled")
    >>> model = FollowTheMetaLeader(stream=stream)(network)
    >>> block = next(streams.replay(data=digits).open(size=300))
    >>> right = [model.signature.classes[k] for k in model.open().predict(block).argmax(1)] == block.y
    >>> bool(right.mean() > 0.5)
    True
    """

    concept: str = ""
    """The column that says which concept an event is of; without one concepts are found. It is no part of the sample."""
    memory: float = Field(default=1.0, ge=0)
    """Megabytes (10⁶ bytes) of past samples, shared evenly among `concepts`."""
    concepts: int = Field(default=20, ge=1)
    """Concepts that are kept at most, those that were learnt from last."""
    quiet: int = Field(default=30, ge=1)
    """Labelled events without a new class after which a new class begins a concept, where no column tells."""
    batch: int = Field(default=10, ge=1)
    """Labelled events of a mini-batch."""
    steps: int = Field(default=3, ge=0)
    """Outer steps after each mini-batch, each on one concept."""
    inner_steps: int = Field(default=5, ge=1)
    """Steps of the inner loop."""
    inner_batch: int = Field(default=10, ge=1)
    """Samples of a concept that the inner loop learns from in an outer step, and as many that judge it; adapting takes twice as many."""
    inner_rate: float | None = Field(default=None, gt=0)
    """α; by default the network's own rates, which are learned or its inner rate, else 0.1."""
    rate: float = Field(default=1e-3, gt=0)
    """β, of Adam."""
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
        "memory": 0.01,
        "batch": 20,
        "steps": 1,
        "inner_steps": 2,
        "concepts": 3,
    }
    contract_input: ClassVar[Any] = staticmethod(_small_network)

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        from mapsto.nn.online.trained.growing_network import GrowingNetwork, Training, trainable
        from mapsto.nn.online.trained.learned_rates import LearnedRates
        from mapsto.nn.online.trained.learner import TrainedLearner
        from mapsto.nn.online.trained.meta_leader import MetaLeader, MetaLeaderFields
        from mapsto.nn.online.trained.samples import RawSamples

        network = trainable(base, where="online.follow_the_meta_leader")
        samples = RawSamples(network.signature, types=types)
        training = Training(**{name: fields[name] for name in ("part", "rank", "rate", "batch_norm", "seed")})
        growing = GrowingNetwork(network, training, where="online.follow_the_meta_leader")
        settings = MetaLeaderFields(
            most_bytes=int(fields["memory"] * 1e6),
            most_concepts=fields["concepts"],
            told=bool(fields["concept"]),
            **{
                name: fields[name] for name in ("batch", "inner_steps", "inner_batch", "steps", "second_order", "quiet")
            },
        )
        rates = LearnedRates(network, growing, fields["inner_rate"])
        return TrainedLearner(
            MetaLeader(growing, rates, samples, settings),
            samples,
            most_late=int(fields["late"]),
            concept=fields["concept"],
        )
