"""Online elastic weight consolidation: weights that mattered for what came before are held near where they were.

``L = CE over batch + α/2 Σ F (θ − θ*)²``. Where new classes come, and every so many labelled events, θ* becomes θ and
``F ← γ F + mean (∂ log p(y|x) / ∂θ)²`` over the last samples, which the memory holds for it (Kirkpatrick et al., "Overcoming Catastrophic
Forgetting in Neural Networks", 2017; Schwarz et al., "Progress & Compress", 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.method import Method, Step
from mapsto.nn.online.trained.sample_memory import Recent, SampleMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ewc"]

_DECAY = 0.9
"""γ."""
_SAMPLES = 64
"""Past samples, at most, from which F is estimated, one gradient each."""


class Ewc(Method):
    """A quadratic penalty."""

    alpha = 100.0
    policy = Recent
    consolidates = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._fisher: dict[str, Tensor] = {}
        self._anchor: dict[str, Tensor] = {}

    def loss(self, step: Step) -> Tensor:
        loss = super().loss(step)
        if not self._fisher:
            return loss
        away = [
            (fisher * (parameter[: len(fisher)] - self._anchor[name]).square()).sum()
            for name, parameter in self.network.parameters.items()
            for fisher in [self._fisher[name]]
        ]
        return loss + self.weight / 2 * torch.stack(away).sum()

    def consolidate(self, draws: np.random.Generator) -> str:
        held = cast("SampleMemory", self.memory)
        places = held.draw(_SAMPLES, draws)
        if not places:
            return ""
        parameters = self.network.parameters
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        for place in places:
            logits = self.network.logits(self.network.features(self.inputs_of([place])))
            found = self.network.gradients(cross_entropy(logits, self.labels_of([place])))
            for name, gradient in found.items():
                total[name] += gradient.square() / len(places)
        for name, fisher in total.items():
            before = self._fisher.get(name)
            if before is not None:
                fisher[: len(before)] += _DECAY * before
        self._fisher = total
        self._anchor = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        return "weights held near where they are"

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            **{f"fisher.{name}": each.numpy().copy() for name, each in self._fisher.items()},
            **{f"anchor.{name}": each.numpy().copy() for name, each in self._anchor.items()},
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        for kind, kept in (("fisher", self._fisher), ("anchor", self._anchor)):
            for name, parameter in self.network.parameters.items():
                if f"{kind}.{name}" not in arrays:
                    continue
                tensor = torch.tensor(arrays[f"{kind}.{name}"])
                if tensor.shape[1:] != parameter.shape[1:] or len(tensor) > len(parameter):
                    raise ValueError(f"{kind} of {name} has shape {tuple(tensor.shape)}")
                kept[name] = tensor
