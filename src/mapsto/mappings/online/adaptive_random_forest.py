"""A forest of trees that grow with the stream, each replaced when it drifts (extra `online`).

Each tree sees an event Poisson(6) times and a few features a leaf, votes by its accuracy, and has a detector of drift (ADWIN): a warning
begins another tree in the background, an alarm puts it in place (Gomes et al., "Adaptive Random Forests for Evolving Data Stream
Classification", 2017). The forest is river's (Montiel et al., "River: Machine Learning for Streaming Data in Python", 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.river_rule import OfRiver, RiverRule
from mapsto.nn.online.rule import Rule

__all__ = ["AdaptiveRandomForest"]


class AdaptiveRandomForest(OfRiver):
    """Trees that answer to drift: accurate where the concept changes, and slow."""

    trees: int = Field(default=10, ge=1)
    """How many vote."""
    grace: int = Field(default=50, ge=1)
    """Events between attempts to split a leaf."""
    depth: int = Field(default=20, ge=1)
    """Of a tree at most: what bounds memory."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the draws."""

    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100, "depth": 1, "trees": 1}

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 500.0 + 40.0 * inputs

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        return RiverRule(
            lambda river: river.forest.ARFClassifier(
                n_models=fields["trees"],
                grace_period=fields["grace"],
                max_depth=fields["depth"],
                seed=fields["seed"],
                memory_estimate_period=2**62,  # it measures memory by the interpreter's sizes, which are no rule
            )
        )
