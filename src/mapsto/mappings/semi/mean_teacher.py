"""Train a network towards the answers of the average of its own weights over the steps, on differently changed samples of a pool.

``λ(t) · mean ‖softmax f_θ(s(u)) − softmax f_θ'(w(u))‖²`` with ``θ' ← α θ' + (1 − α) θ`` and λ(t) rising as ``exp(−5 (1 − t)²)``
(Tarvainen and Valpola, "Mean Teachers are Better Role Models", 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.semi.pool_process import PoolProcess

if TYPE_CHECKING:
    from mapsto.nn.semi.rules import Rule

__all__ = ["MeanTeacher"]


class MeanTeacher(PoolProcess):
    """A network trained on labels and towards its own average, which is the result."""

    weight: float = Field(default=10.0, ge=0)
    """λ at its highest: how much the pool's loss counts, the squared distance of two distributions."""
    rising: float = Field(default=0.3, gt=0, le=1)
    """Share of the training over which λ rises."""
    ema: float = Field(default=0.99, gt=0, lt=1)
    """α: decay of the average of the weights, the teacher; 0.99 in the paper's first steps, 0.999 later."""

    def pool_rule(self, classes: int, pool: int) -> Rule:
        from mapsto.nn.semi.thresholds import Averaged

        return Averaged(self.rising)
