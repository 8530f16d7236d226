"""Learning without forgetting: on new samples the network also gives the answers that it gave before it learnt from them.

``L = CE over batch + α T² KL(softmax(z*/T) ‖ softmax(z/T))`` over the classes that the earlier network knew, T = 2 (Li and Hoiem, "Learning
without Forgetting", 2018). The earlier network is the one of when new classes came last, or of so many labelled events ago. It needs no
memory of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.nn.functional import kl_div

from mapsto.nn.online.trained.growing_network import FrozenCopy
from mapsto.nn.online.trained.method import Method, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Lwf"]

_TEMPERATURE = 2.0


class Lwf(Method):
    """Distillation from the network of before."""

    consolidates = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.earlier: FrozenCopy | None = None

    def loss(self, step: Step) -> Tensor:
        loss = super().loss(step)
        if self.earlier is None or step.logits is None or self.earlier.classes < 2:
            return loss
        target = (self.earlier.logits(step.inputs) / _TEMPERATURE).log_softmax(1)
        own = (step.logits[:, : self.earlier.classes] / _TEMPERATURE).log_softmax(1)
        return loss + self.weight * _TEMPERATURE**2 * kl_div(own, target, log_target=True, reduction="batchmean")

    def consolidate(self, draws: np.random.Generator) -> str:
        self.earlier = self.network.frozen()
        return "its answers are kept for distillation"

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {} if self.earlier is None else self.earlier.arrays()

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        if arrays:
            self.earlier = self.network.frozen()
            self.earlier.restore(arrays)
