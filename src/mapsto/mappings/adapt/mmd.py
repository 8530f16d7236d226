"""Train on a labelled source while the maximum mean discrepancy between its embeddings and an unlabelled target's is kept small.

``CE(f(x_s), y_s) + λ MMD²(z_s, z_t)`` over several Gaussian kernels (Long et al., "Learning Transferable Features with Deep Adaptation
Networks", 2015), on the embedding alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.transfer.training import DomainTraining

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Mmd"]


class Mmd(DomainTraining):
    """A network whose embeddings of both domains are distributed alike."""

    kernels: int = Field(default=5, ge=1)
    """Gaussian kernels, each twice as wide as the one before, around the mean squared distance in a batch."""

    def distance(self, source: Tensor, target: Tensor, critic: nn.Module | None, weight: float) -> Tensor:
        from mapsto.nn.transfer.mmd import mean_discrepancy

        return weight * mean_discrepancy(source, target, kernels=self.kernels)
