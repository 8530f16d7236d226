"""Several online learners at once, and whom to follow: mixtures of all of them, under a budget of time, or one an event by a bandit.

``mix``: all members learn each event, and mixtures that learn whom to follow make one answer of theirs. With ``share`` below 1 successive
halving decides which of them learn, so that all together cost no more than that share once the first trial of all is paid back.
``thompson`` and ``linucb``: one member takes an event, answers it and learns it, chosen by how often each was right, or by the event's
features too; the first 200 events, and then every tenth, all learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.errors import SpecError
from mapsto.kinds import ColumnType, Network, Package, Task
from mapsto.nn.online.members import Member, MemberList, member_from
from mapsto.nn.online.of_members import OfMembers

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner

__all__ = ["Select"]


_USUAL: Mapping[Task, tuple[Any, ...]] = {
    "classes": ("softmax", "prototypes", "mlp", {"tabular": {"preset": "fast"}}, "tabular"),
    "values": ({"tabular": {"preset": "fast"}}, "tabular"),
}


class Select(OfMembers):
    """Learners of different cost over one stream.

    >>> from mapsto import streams
    >>> model = Select(stream=streams.sea(events=1000, noise=0.0), members=["softmax", "prototypes"])(None)
    >>> model.open().names
    ['softmax', 'prototypes']
    >>> shares = model.open().shares()
    >>> bool(abs(sum(shares.values()) - 1) < 1e-9)
    True
    """

    members: MemberList = ()
    """What learns: names of online learners, each with its fields where they are not the defaults. None named: of classes softmax,
    prototypes, mlp, tabular and its fast preset; of values the two presets."""
    how: Literal["mix", "thompson", "linucb"] = "mix"
    """How an answer comes about: of all that learn, or of one that is chosen for each event."""
    share: float = Field(default=1.0, gt=0, le=1)
    """What may be spent, as a share of the cost of all members, by their formulas. Of a bandit: above which share of the cost a member
    has to be better by as much as it is dearer."""
    by: str = ""
    """The column that says whose an event is: who is followed is then learnt for each user too. Empty: the same for all."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of what Thompson sampling draws."""

    tasks: ClassVar[tuple[Task, ...]] = ("classes", "values")
    kept_fields: ClassVar[tuple[str, ...]] = ("members", "how")
    contract: ClassVar[dict[str, Any]] = {
        "stream": {"sea": {"events": 300, "label_delay": 40}},
        "every": 100,
        "members": ["softmax", {"prototypes": {"covariance": "none"}}],
        "share": 0.7,
    }

    def __post_init__(self) -> None:
        if len(self.members) == 1:
            raise SpecError(
                "field 'members': there is nothing to choose among one learner",
                where=self.name,
                hint="name at least 2, or none for the usual ones",
                details=((("members",), "there is nothing to choose among one learner"),),
            )

    @classmethod
    def members_of(cls, fields: Mapping[str, Any], task: Task) -> list[Member]:
        return [member_from(node) for node in fields["members"] or _USUAL[task]]

    @classmethod
    def _made_of(
        cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task, base: Network | Package | None
    ) -> StreamLearner:
        from mapsto.nn.online.selection.halving import Halving
        from mapsto.nn.online.selection.learner import SelectionLearner
        from mapsto.nn.online.selection.linucb import LinUcb
        from mapsto.nn.online.selection.thompson import Thompson

        members = cls.members_of(fields, task)
        choosers = {"mix": Halving, "thompson": Thompson, "linucb": LinUcb}
        return SelectionLearner(
            members,
            types,
            task,
            chooser=choosers[fields["how"]](len(members), share=float(fields["share"]), seed=int(fields["seed"])),
            by=str(fields["by"]),
            most_late=int(fields["late"]),
            categories=int(fields["categories"]),
            base=base,
        )

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        members = cls.members_of(fields, "classes")
        return 60.0 + float(fields["share"]) * sum(member.cost(inputs, classes) for member in members)
