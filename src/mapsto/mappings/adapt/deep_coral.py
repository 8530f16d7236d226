"""Train on a labelled source while the covariance of its embeddings is drawn to that of an unlabelled target's.

``CE(f(x_s), y_s) + λ ‖C_s − C_t‖² / 4D²`` (Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.transfer.training import DomainTraining

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["DeepCoral"]


class DeepCoral(DomainTraining):
    """A network whose embeddings of both domains have one covariance."""

    weight: float = Field(default=10.0, ge=0)
    """λ: how much the distance counts in the end, which falls with the square of the size of the embedding."""

    def distance(self, source: Tensor, target: Tensor, critic: nn.Module | None, weight: float) -> Tensor:
        from mapsto.nn.transfer.coral import covariance_distance

        return weight * covariance_distance(source, target)
