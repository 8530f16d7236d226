"""A decision tree that grows with the stream: a leaf is split once the better of two splits is surely the better (extra `online`).

With n events in a leaf a split is chosen where its gain is ahead of the next one's by ``√(R² ln(1/δ) / 2n)`` (Domingos and Hulten, "Mining
High-Speed Data Streams", 2000). The tree is river's (Montiel et al., "River: Machine Learning for Streaming Data in Python", 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from mapsto.kinds import Json
from mapsto.nn.online.river_rule import OfRiver, RiverRule
from mapsto.nn.online.rule import Rule

__all__ = ["HoeffdingTree"]


class HoeffdingTree(OfRiver):
    """One tree with naive Bayes in its leaves where that does better: small and quick, and without an answer to drift."""

    grace: int = Field(default=200, ge=1)
    """Events between attempts to split a leaf."""
    delta: float = Field(default=1e-7, gt=0, lt=1)
    """δ, how likely a split may be the wrong one."""
    depth: int = Field(default=20, ge=1)
    """Of the tree at most: what bounds its memory."""

    contract: ClassVar[dict[str, Any]] = {"stream": {"sea": {"events": 300}}, "every": 100, "depth": 2, "grace": 50}

    @classmethod
    def cost(cls, fields: Mapping[str, Any], inputs: int, classes: int) -> float:
        return 60.0 + 20.0 * inputs

    @classmethod
    def rule(cls, fields: Mapping[str, Json]) -> Rule:
        return RiverRule(
            lambda river: river.tree.HoeffdingTreeClassifier(
                grace_period=fields["grace"],
                delta=fields["delta"],
                max_depth=fields["depth"],
                memory_estimate_period=2**62,  # it measures memory by the interpreter's sizes, which are no rule
            )
        )
