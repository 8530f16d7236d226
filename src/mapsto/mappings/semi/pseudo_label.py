"""Train on the network's own answers to a pool as if they were labels, the more the longer it has learnt.

``λ(t) · (1/n) Σ 1[max p ≥ τ] −log f(s(u))[argmax p]`` with ``p = f(w(u))`` and λ(t) rising from 0 between a tenth and six tenths of the
training (Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method", 2013, with τ = 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.semi.pool_process import PoolProcess

if TYPE_CHECKING:
    from mapsto.nn.semi.rules import Rule

__all__ = ["PseudoLabel"]


class PseudoLabel(PoolProcess):
    """A network trained on labels and on its own guesses."""

    threshold: float = Field(default=0.95, ge=0, le=1)
    """τ: how sure an answer must be to count; 0 in the paper, 0.95 is usual since."""

    def pool_rule(self, classes: int, pool: int) -> Rule:
        from mapsto.nn.semi.thresholds import Fixed

        return Fixed(self.threshold, rising=(0.1, 0.6))
