"""Trees that split at random as events come and answer by all their prunings at once (extra `online`).

A tree's answer is the mean over all its prunings, weighted by their exponential loss so far, which one pass from the leaf to the root
computes (Mourtada, Gaïffas and Scornet, "AMF: Aggregated Mondrian Forests for Online Learning", 2021). The forest is river's (Montiel et
al., "River: Machine Learning for Streaming Data in Python", 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.river_rule import OfRiver, RiverRule
from mapsto.nn.online.rule import Rule

__all__ = ["MondrianForest"]


class MondrianForest(OfRiver):
    """Aggregated Mondrian forest: few settings and good answers on small streams; it forgets nothing, and keeps every event in a leaf."""

    trees: int = Field(default=10, ge=1)
    """How many are averaged."""
    split_pure: bool = True
    """Whether a leaf whose events are of one class is split too. river's default is not to: on Bananas that gave .840 for .892."""
    nodes: int = Field(default=10_000, ge=1)
    """Of a tree at most: what bounds memory, 14 MB a tree of ten columns."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the draws."""

    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100, "trees": 1, "nodes": 50}

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 800.0 + 40.0 * inputs

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        return RiverRule(
            lambda river: river.forest.AMFClassifier(
                n_estimators=fields["trees"],
                split_pure=fields["split_pure"],
                max_nodes=fields["nodes"],
                seed=fields["seed"],
            )
        )
