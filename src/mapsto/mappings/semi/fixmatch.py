"""Train strongly changed samples of a pool towards what the network says of slightly changed ones, where it is sure.

``(1/n) Σ 1[max p ≥ τ] −log f(s(u))[argmax p]`` with ``p = f(w(u))`` (Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with
Consistency and Confidence", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.semi.pool_process import PoolProcess

if TYPE_CHECKING:
    from mapsto.nn.semi.rules import Rule

__all__ = ["FixMatch"]


class FixMatch(PoolProcess):
    """A network trained on labels and on its sure answers."""

    threshold: float = Field(default=0.95, ge=0, le=1)
    """τ: how sure an answer must be to count; 0.95 in the paper."""

    def pool_rule(self, classes: int, pool: int) -> Rule:
        from mapsto.nn.semi.thresholds import Fixed

        return Fixed(self.threshold)
