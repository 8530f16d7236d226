"""A recipe as mappings, and the schema that its text follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mapsto.mapping import Mapping as MapstoMapping

__all__ = ["LARGEST_SEED", "SCHEMA", "AnyMapping", "Recipe"]


SCHEMA = 1
LARGEST_SEED = 2**63 - 1
AnyMapping = MapstoMapping[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as mappings: what the executor runs."""

    steps: AnyMapping
    """A chain, or one mapping."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Label → data set, tasks or stream."""
    name: str = "recipe"
    title: str = ""
    seed: int = 0
    quick: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """``label.field`` → value, for a run that only shows that everything works."""
    targets: tuple[Mapping[str, Any], ...] = ()
    """What the run has to show: ``{what, metric: stage.report.metric, goal: ">= 87"}``."""
    serve: Mapping[str, Any] | None = None
    """How its package is served: fields of `mapsto.recipe.serving.Serving`."""
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    """``stage.report`` → why it is not made: its optional data are not there."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What reading it has to say: forms of before that were read as they are written now."""
