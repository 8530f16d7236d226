"""Spread a few labels to a pool along a graph of nearest neighbours among embeddings, then fit a linear head on both.

``F_U = (D_UU − W_UU)⁻¹ W_UL Y_L`` with W the weights of the graph (Zhu and Ghahramani, "Learning from Labeled and Unlabeled Data with
Label Propagation", 2002), or spreading, ``F = (I − α S)⁻¹ Y`` (Zhou et al., "Learning with Local and Global Consistency", 2004); the head
is a ridge regression on the roots of the embedding, to the labels and the likeliest class of each sample of the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Samples
from mapsto.nn.semi.on_features import POOL, Guess, OnFeatures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Propagation"]


class Propagation(OnFeatures):
    """A linear head for `data`, helped by `unlabelled`; the embedding stays as it is, quantized or not."""

    method: Literal["propagation", "spreading"] = "propagation"
    """`propagation`: the labelled examples keep their labels; `spreading`: their neighbours may overrule them."""
    neighbours: int = Field(default=10, ge=1)
    """k: neighbours that a sample is joined to."""
    alpha: float = Field(default=0.99, gt=0, lt=1)
    """α of `spreading`: how much of its label a sample takes from its neighbours; 0.99 in the paper."""
    balance: float = Field(default=1.0, ge=0, le=1)
    """How far the classes are taken to be equally frequent in the pool: 1 wholly, 0 not at all."""

    rounds: int = Field(default=4, ge=1)
    """How often labels are spread: the surest of each class, more from round to round, count as labelled in the next; 1: once."""

    contract: ClassVar[dict[str, Any]] = {"unlabelled": POOL}

    def guess(self, features: NDArray[Any], pool: NDArray[Any], samples: Samples, ctx: Context) -> Guess:
        from mapsto.nn.semi.propagation import Spreader, self_trained

        spreader = Spreader(features, pool, len(samples.classes), neighbours=self.neighbours)

        def shares(known: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
            return self_trained(
                spreader,
                known,
                labels,
                rounds=self.rounds,
                method=self.method,
                alpha=self.alpha,
                balance=self.balance,
            )

        return shares
