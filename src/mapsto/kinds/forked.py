"""What a fork gives: one value a branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Forked"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Forked:
    """The labelled results of a fork; only ``choose.*`` or a reference to a label consumes it."""

    parts: Mapping[str, Any]
    """Label → what the branch gives; of a branch that ends in a fork this is a `Forked` too."""
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    """Label → why there is no such part: a branch that could not be made, where the choice goes on without."""

    def flat(self) -> dict[str, Any]:
        """Every part by its own label, those of inner forks in place of these."""
        found: dict[str, Any] = {}
        for label, part in self.parts.items():
            found.update(part.flat() if isinstance(part, Forked) else {label: part})
        return found

    @property
    def missing(self) -> dict[str, str]:
        """What was left out, in inner forks too."""
        inner = [part.missing for part in self.parts.values() if isinstance(part, Forked)]
        return {label: why for each in (self.left_out, *inner) for label, why in each.items()}
