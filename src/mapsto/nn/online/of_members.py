"""What mappings whose learner is made of other learners have in common.

On a network all of them stand behind it as an encoder, unless one of them trains that network; then each is given the raw events.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mapsto.kinds import ColumnType, Network, Package, Task
from mapsto.nn.online.loop import Online
from mapsto.nn.online.members import Member

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner

__all__ = ["OfMembers"]


class OfMembers(Online):
    """An online learner that is made of others."""

    @classmethod
    @abstractmethod
    def members_of(cls, fields: Mapping[str, Any], task: Task) -> list[Member]:
        """What it is made of, by its fields, of which none is missing."""

    @classmethod
    @abstractmethod
    def _made_of(
        cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task, base: Network | Package | None
    ) -> StreamLearner:
        """As `_learner`; `base` is the network that members are given where one of them trains it."""

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        if all(member.encodes for member in cls.members_of(fields, task)):
            return super()._standing(base, fields, types, task)
        return cls._made_of(fields, types, task, base)

    @classmethod
    def _learner(cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task) -> StreamLearner:
        return cls._made_of(fields, types, task, None)
