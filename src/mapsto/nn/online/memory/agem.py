"""Averaged gradient episodic memory: a step may not make the loss on past samples larger.

``g ← g − (g·r / r·r) r where g·r < 0`` with g the gradient on the mini-batch and r that on replayed samples (Chaudhry et al., "Efficient
Lifelong Learning with A-GEM", 2019). The memory is a reservoir, since no task is told.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.method import Method, Step
from mapsto.nn.online.trained.sample_memory import Reservoir

__all__ = ["Agem"]


class Agem(Method):
    """Gradients that are projected."""

    policy = Reservoir

    def gradients(self, step: Step) -> dict[str, Tensor]:
        places = self.replayed(step.draws)
        if not places:
            return super().gradients(step)
        step.logits, old = self.together(step.inputs, self.inputs_of(places, step.draws))
        found = self.network.gradients(cross_entropy(step.logits, step.labels), again=True)
        past = self.network.gradients(cross_entropy(old, self.labels_of(places)))
        along = torch.stack([(found[name] * past[name]).sum() for name in found]).sum()
        if along >= 0:
            return found
        size = torch.stack([gradient.square().sum() for gradient in past.values()]).sum()
        return {name: gradient - along / size * past[name] for name, gradient in found.items()}
