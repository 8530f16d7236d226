"""Go on with one branch of a fork, named by its label.

``fork(mild=…, hard=…) >> choose.branch(label="mild")``; the other branches stay in the store. Nothing is computed, so there is no
source to cite beyond the library's own fork.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import SpecError, nearest
from mapsto.kinds import Forked, Network
from mapsto.mapping import Branches, Mapping, accepts, kind_name

__all__ = ["Branch"]


class Branch(Mapping[Forked, Network]):
    """The network of one branch."""

    label: str = Field(min_length=1)
    """The branch's label."""

    contract: ClassVar[dict[str, Any]] = {"label": "a"}

    def misfit(self, given: Any) -> str | None:
        if not isinstance(given, Branches):
            return super().misfit(given)
        if self.label not in given.kinds:
            return (
                f"takes the branch '{self.label}', which is none of its branches ({nearest(self.label, given.kinds)})"
            )
        kind = given.kinds[self.label]
        return None if accepts(Network, kind) else f"takes a Network: branch '{self.label}' gives {kind_name(kind)}"

    def apply(self, value: Forked, ctx: Context) -> Network:
        """Raises `SpecError` for an unknown label, or a branch that gives no network."""
        if self.label not in value.parts:
            raise SpecError(
                f"no branch is labelled '{self.label}'", where="choose.branch", hint=nearest(self.label, value.parts)
            )
        chosen = value.parts[self.label]
        if not isinstance(chosen, Network):
            raise SpecError(
                f"branch '{self.label}' gives a {type(chosen).__name__}, not a Network", where="choose.branch"
            )
        return chosen
