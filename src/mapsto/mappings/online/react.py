"""An online learner that reacts where its stream drifts, as a detector on its error says.

``warn`` says so. ``rate`` raises the learner's rate for a while, ``reset`` lets its head begin anew. ``challenge``: another learner begins
with the last events and learns beside; it takes over when a test says that it is better. ``distil``: what answers stays as small as it is,
and learns of the last events what the challenger says of them (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network",
2015); it is accepted where it is no worse on the events that follow. ``recall``: the learner of each concept is kept, and takes over when
its concept is back (Gama and Kosina, "Recurrent Concepts in Data Streams Classification", 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import ColumnType, Network, Package, Task
from mapsto.nn.online.members import Member, OneMember, OptionalMember, member_from
from mapsto.nn.online.of_members import OfMembers

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner

__all__ = ["React"]


class React(OfMembers):
    """A learner, and what is done where its error rises.

    >>> from mapsto import streams
    >>> there, back = (streams.agrawal(functions=[number], seed=number, events=1500) for number in (1, 5))
    >>> model = React(stream=streams.drift(streams=[there, back, there], at=[1500, 3000]))(None)
    >>> [row[1] for row in model.open().tables()[0]["rows"]][:3]
    ['concept 1', 'concept 2', 'concept 1']
    """

    learner: OneMember = Member(learner="online.tabular", fields={"preset": "fast"})
    """What answers: the name of an online learner, with its fields where they are not the defaults."""
    challenger: OptionalMember = None
    """What challenges it after a drift; by default another one of the same kind."""
    reactions: tuple[Literal["warn", "rate", "reset", "challenge", "distil", "recall"], ...] = Field(
        default=("warn", "challenge", "recall"), min_length=1
    )
    """What is done where a drift is marked, each at most once."""
    detectors: tuple[str, ...] = Field(default=("adwin",), min_length=1)
    """What marks drifts on its error: adwin, ddm, kswin, page_hinkley."""
    factor: float = Field(default=10.0, gt=1)
    """By how much `rate` raises the rate, which then comes back."""
    window: int = Field(default=200, ge=16)
    """The last events that a challenger begins with, and by which it is distilled."""
    patience: int = Field(default=2000, ge=16)
    """Labels after which a challenger that is not better gives up."""
    concepts: int = Field(default=5, ge=1)
    """How many earlier concepts are kept."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the labels that are drawn to distil."""

    tasks: ClassVar[tuple[Task, ...]] = ("classes", "values")
    kept_fields: ClassVar[tuple[str, ...]] = ("learner", "challenger", "detectors")
    contract: ClassVar[dict[str, Any]] = {
        "stream": {"sea": {"events": 700, "concept": 200, "thresholds": [3.0, 15.0], "label_delay": 40}},
        "every": 100,
        "learner": "softmax",
        "window": 32,
        "reactions": ["warn", "rate", "challenge", "distil", "recall"],
    }

    @classmethod
    def members_of(cls, fields: Mapping[str, Any], task: Task) -> list[Member]:
        learner = member_from(fields["learner"])
        return [learner, learner if fields["challenger"] is None else member_from(fields["challenger"])]

    @classmethod
    def _made_of(
        cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task, base: Network | Package | None
    ) -> StreamLearner:
        from mapsto.nn.online.reactions.learner import ReactingLearner, Settings

        member, challenger = cls.members_of(fields, task)
        return ReactingLearner(
            member,
            challenger,
            types,
            task,
            settings=Settings(
                reactions=tuple(dict.fromkeys(fields["reactions"])),
                detectors=tuple(dict.fromkeys(fields["detectors"])),
                factor=float(fields["factor"]),
                window=int(fields["window"]),
                patience=int(fields["patience"]),
                concepts=int(fields["concepts"]),
                seed=int(fields["seed"]),
            ),
            most_late=int(fields["late"]),
            categories=int(fields["categories"]),
            base=base,
        )

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 60.0 + 1.2 * member_from(fields["learner"]).cost(inputs, classes)
