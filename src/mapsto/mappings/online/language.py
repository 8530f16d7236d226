"""A language model over bytes that learns from each as it comes, so that it keeps up with a text that changes.

Contexts of several orders count what followed them, a small recurrent network is trained on the text and on past pieces of it, and mixers
join what they say bit by bit, ``p = σ(Σ w_i logit p_i)``, with weights that follow (Mahoney, "Adaptive Weighing of Context Models for
Lossless Data Compression", 2005; Mattern, "Mixing Strategies in Data Compression", 2012; Knoll and de Freitas, "A Machine Learning
Perspective on Predictive Coding with PAQ", 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto import discovery
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import ColumnType, Model, Network, Package, Stream
from mapsto.native.tabular import learner_library
from mapsto.nn.online.loop import Online
from mapsto.process import Live, State

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner, Task

__all__ = ["Language"]

_SHAPES = ("members", "order", "table_bits", "hidden", "chunk", "replay", "memory")
"""Fields that a model keeps when it is learnt on: its arrays are made by them."""


class Language(Online):
    """A model of the stream's bytes, from nothing or from the model of an earlier text.

    >>> import tempfile, pathlib
    >>> from mapsto import streams
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "rhyme.txt"
    >>> _ = file.write_text("row, row, row your boat, gently down the stream. " * 20)
    >>> model = Language(stream=streams.bytes(files=(str(file),)), hidden=16, table_bits=10, memory=10_000)(None)
    >>> model.open().continuation("gently down ", length=11, temperature=0.0)
    b'the stream.'
    """

    members: Literal["both", "contexts", "network"] = "both"
    """What answers: both, or one of them alone."""
    order: int = Field(default=6, ge=2, le=6)
    """Bytes of the longest context that is counted."""
    table_bits: int = Field(default=18, ge=8, le=24)
    """2^table_bits contexts are kept of each order, each in 16 bytes (of orders 2 to 4 half as many, in 32); those that came least make
    room.
    """
    hidden: int = Field(default=128, ge=16, le=1024, multiple_of=16)
    """Units of the recurrent network's state."""
    chunk: int = Field(default=32, ge=2, le=1024)
    """Bytes after which the network makes a step of learning, back through as many."""
    rate: float = Field(default=0.0015, gt=0, le=1)
    """Rate of Adam in the long run; the first steps are four times as long, and after 3,000 steps twice as long."""
    update: Literal["all", "adapters", "none"] = "all"
    """Which weights of the network learn: all, low-rank additions to them with the biases, or none."""
    rank: int = Field(default=8, ge=1, le=64)
    """Rank of the adapters."""
    replay: int = Field(default=3, ge=0, le=64)
    """Past pieces that are learnt beside each new one."""
    recent: int = Field(default=1, ge=0, le=64)
    """How many of these are of the latest pieces; the others are drawn from all that is kept."""
    memory: int = Field(default=1_000_000, ge=10_000, le=2**30)
    """Bytes of past text that are kept for replay: a sample of all of it."""
    frozen: bool = False
    """Whether nothing is learnt, neither weights nor counts: the text is only read."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the network's first weights and of what is replayed."""

    can_be_member: ClassVar[bool] = False  # it knows bytes, and no columns
    can_be_packaged: ClassVar[bool] = False
    contract: ClassVar[dict[str, Any]] = {
        "stream": {"bytes": {"files": [__file__], "ranges": [[0, 700]]}},
        "hidden": 16,
        "chunk": 8,
        "table_bits": 8,
        "memory": 10_000,
        "every": 100,
    }

    @staticmethod
    def contract_stream(events: int) -> Stream:
        """So many events that it can learn, for the contract suite."""
        parts = -(-events // 1000)
        ranges = (*(((0, 1000),) * (parts - 1)), (0, events - 1000 * (parts - 1)))
        return discovery.find("streams", "bytes")(files=(__file__,) * parts, ranges=ranges)

    def open(self, value: Network | Package | Model | None, state: State | None, ctx: Context) -> Live[Model]:
        learner_library("language_learner", ctx.note)  # where it has to be compiled, which takes a while, that is said
        if isinstance(value, Model) and value.learner == self.name:
            learnt = self.completed(value.fields)
            shapes = (*_SHAPES, "rank") if learnt["update"] == self.update == "adapters" else _SHAPES
            for name in shapes:
                if learnt[name] != getattr(self, name):
                    raise DomainError(
                        f"the model was learnt with {name} {learnt[name]}, not {getattr(self, name)}",
                        where=self.name,
                        hint=f"go on with {name}: {learnt[name]}, or begin with no model",
                    )
        elif value is None and (self.frozen or (self.update != "all" and self.members != "contexts")):
            what = "nothing is learnt" if self.frozen else f"the network learns by update: {self.update} alone"
            ctx.warn(f"{what}, and there is no model of an earlier text to go on from: begin with update: all")
        return super().open(value, state, ctx)

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        if base is not None:
            raise DomainError(
                f"it reads bytes, and stands on no {type(base).__name__}",
                where="online.language",
                hint="begin with nothing, or with the model of an earlier text",
            )
        return cls._learner(fields, types, task)

    @classmethod
    def _learner(cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task) -> StreamLearner:
        from mapsto.nn.online.language import LanguageLearner
        from mapsto.nn.online.native_language import LanguageFields

        return LanguageLearner(LanguageFields(**{name: fields[name] for name in LanguageFields._fields}))
