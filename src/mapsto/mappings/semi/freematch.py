"""FixMatch with thresholds that follow how sure the network is, in all and of each class, and a term that spreads its answers over the
classes.

``τ ← λ τ + (1 − λ) mean max p``, ``p̃ ← λ p̃ + (1 − λ) mean p``, ``τ_c = τ p̃_c / max p̃``; and ``w_f Σ q log r`` with q and r the mean
answers of the past and of this batch, each divided by how often a class is answered and normalised (Wang et al., "FreeMatch:
Self-adaptive Thresholding for Semi-supervised Learning", 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.semi.pool_process import PoolProcess

if TYPE_CHECKING:
    from mapsto.nn.semi.rules import Rule

__all__ = ["FreeMatch"]


class FreeMatch(PoolProcess):
    """A network trained on labels and on answers that are sure for its state of learning."""

    decay: float = Field(default=0.999, ge=0, lt=1)
    """λ of the averages; 0.999 in the paper. In the first steps it is lower, (1 + t) / (10 + t), so that they start from what is seen."""
    fairness: float = Field(default=0.01, ge=0)
    """w_f; 0.01 in the paper, 0.05 for one label a class."""

    def pool_rule(self, classes: int, pool: int) -> Rule:
        from mapsto.nn.semi.thresholds import Free

        return Free(self.decay, self.fairness, classes)
