"""Guess a pool's classes by optimal transport between power-transformed embeddings and moving centres, then fit a linear head on both.

``z = (f + ε)^β / ‖(f + ε)^β‖``; shares by Sinkhorn's iterations, each class with the same mass; centres moved towards the means of
their shares (Hu, Gripon and Pateux, "Leveraging the Feature Distribution in Transfer-based Few-Shot Learning", 2021, PT-MAP). The head is a
ridge regression on the roots of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Samples
from mapsto.nn.semi.on_features import POOL, Guess, OnFeatures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PtMap"]


class PtMap(OnFeatures):
    """A linear head for `data`, helped by `unlabelled` in which the classes are about equally frequent."""

    power: float = Field(default=0.5, gt=0, le=1)
    """β: the power by which large features are tamed; 0.5 in the paper."""
    sharpness: float = Field(default=10.0, gt=0)
    """λ: how surely a sample belongs to its nearest centre; 10 in the paper."""
    step: float = Field(default=0.2, gt=0, le=1)
    """Share of the way to the new mean that a centre goes in a round; 0.2 in the paper with several examples a class, 0.4 with one."""
    rounds: int = Field(default=20, ge=1)
    """Rounds of transport and moving; 20 to 30 in the paper."""

    contract: ClassVar[dict[str, Any]] = {"unlabelled": POOL}

    def guess(self, features: NDArray[Any], pool: NDArray[Any], samples: Samples, ctx: Context) -> Guess:
        from mapsto.nn.semi.pt_map import transported

        def shares(known: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
            return transported(
                features[known],
                labels,
                pool,
                len(samples.classes),
                power=self.power,
                sharpness=self.sharpness,
                step=self.step,
                rounds=self.rounds,
            )

        return shares
