"""FixMatch with a threshold for each class, lower where few samples of the pool are taken for it: what is hard to learn is let in earlier.

``τ_c = τ · M(σ_c / max(max σ, M − Σ σ))`` with σ_c how many of the pool are taken for class c at τ and ``M(x) = x / (2 − x)`` (Zhang et
al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling", 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.semi.pool_process import PoolProcess

if TYPE_CHECKING:
    from mapsto.nn.semi.rules import Rule

__all__ = ["FlexMatch"]


class FlexMatch(PoolProcess):
    """A network trained on labels and on answers that are sure for their class."""

    threshold: float = Field(default=0.95, ge=0, le=1)
    """τ: the highest threshold, of the class that is learnt best; 0.95 in the paper."""

    def pool_rule(self, classes: int, pool: int) -> Rule:
        from mapsto.nn.semi.thresholds import Flexible

        return Flexible(self.threshold, classes, pool)
