"""Train on a labelled source so that a classifier of domains, trained at the same time, cannot tell its embeddings from the target's.

``min_θ max_φ CE(f_θ(x_s), y_s) − λ CE(c_φ(z), domain)`` by a layer that turns the gradient around (Ganin et al., "Domain-Adversarial
Training of Neural Networks", 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.nn.transfer.training import DomainTraining

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Dann"]


class Dann(DomainTraining):
    """A network whose embeddings do not say which domain they are of."""

    hidden: int = Field(default=128, ge=1)
    """Width of the domain classifier, which has one hidden layer."""

    def critic(self, size: int) -> nn.Module:
        from mapsto.nn.transfer.adversary import DomainClassifier

        return DomainClassifier(size, self.hidden)

    def distance(self, source: Tensor, target: Tensor, critic: nn.Module | None, weight: float) -> Tensor:
        from mapsto.errors import MapstoError
        from mapsto.nn.transfer.adversary import DomainClassifier, reversed_gradient

        if not isinstance(critic, DomainClassifier):
            raise MapstoError("there is no domain classifier", where=self.name)
        return critic.loss(reversed_gradient(source, weight), reversed_gradient(target, weight))
